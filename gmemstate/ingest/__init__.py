"""From the text of others to events: lines, facts, joins."""
