"""Conclusions: what the lines of a record carry, derived once, and asked by every answer that says what may be done."""
