"""The parts of tools/capture. Python 3.10 or newer, and nothing else."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - hosts have what they have
    sys.exit("capture: needs Python 3.10 or newer; name one: python3.11 capture ...")
