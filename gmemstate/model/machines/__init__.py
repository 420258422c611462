"""The state machines of ranges, conversions and messed-up host pages."""
