"""Questions over a record, wherever it lies."""
