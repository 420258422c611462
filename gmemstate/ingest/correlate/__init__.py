"""From facts to events: which guest, conversion, page and thread each is about."""
