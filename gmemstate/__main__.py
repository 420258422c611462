"""``python -m gmemstate``."""

from gmemstate.cli.main import main

main()
