"""The front door: open a ledger, put evidence into it, ask it."""
