"""The public library: open a ledger, put evidence into it, ask it."""
