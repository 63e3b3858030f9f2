"""Sweep seeds: ``python -m tests.sweep``."""

import sys

from tests.sweep.sweeping import main

if __name__ == "__main__":
    sys.exit(main())
