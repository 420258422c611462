"""What each kind of event does to a memory, one function per kind."""
