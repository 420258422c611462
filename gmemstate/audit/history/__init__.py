"""Everything that a record tells, up to a moment."""
