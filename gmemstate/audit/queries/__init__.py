"""What can be listed of a record: conversions, requests of guests, the state of pages, and pages that cannot be trusted."""
