"""One module for each kind of story."""
