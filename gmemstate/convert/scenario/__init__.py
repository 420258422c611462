"""Scenario files: read, checked, and compared with what came of them."""
