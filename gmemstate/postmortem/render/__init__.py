"""A post-mortem as text for a terminal and as a page."""
