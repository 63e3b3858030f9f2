"""How a command ends: its exit codes, and the one line on standard error when something is wrong.

::

    exit code   meaning
    0           done
    1           the work failed, or some of it could not be done
    2           wrong usage: nothing was begun
    130         interrupted by Ctrl-C, or by SIGTERM where that ends no server
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "USAGE",
    "UsageError",
    "complain",
    "ended_by_sigterm",
]

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


@contextmanager
def ended_by_sigterm() -> Generator[None]:
    """Let SIGTERM end the work as Ctrl-C does, so that nothing is left of it."""
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)
