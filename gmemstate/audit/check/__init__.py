"""Whether a record is whole and unaltered."""
