"""What went wrong, whose fault it is, what is left and what to do: incidents and their stories."""
