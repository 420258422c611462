"""From the lines of one format to facts."""
