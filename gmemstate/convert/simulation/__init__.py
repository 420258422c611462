"""A simulated host: guests, users of pages, and what happens to them besides conversions."""
