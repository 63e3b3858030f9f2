"""How a command ends: its exit codes, and the one line on standard error when something is wrong.

::

    exit code   meaning
    0           done
    1           the work failed, or some of it could not be done
    2           wrong usage: nothing was begun
    130         interrupted by Ctrl-C
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Final

__all__ = ["DONE", "FAILED", "INTERRUPTED", "USAGE", "UsageError", "complain"]

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


class UsageError(Exception):
    """What was asked for cannot be begun; the text says why."""


def complain(message: str, code: int) -> int:
    """Say on standard error, in one line, what is wrong; returns the exit code."""
    line = " ".join(message.split())
    with suppress(OSError):
        print(f"aiopatterns: {line}", file=sys.stderr, flush=True)
    return code
