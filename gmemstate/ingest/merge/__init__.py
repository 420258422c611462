"""Several sources as one history, in the order of one clock."""
