"""Known problems and the meaning of reports, as data, and how they are recognised."""
