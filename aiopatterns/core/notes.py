"""Notes on errors that are not ours: where it happened, and what else went wrong.

A user's error leaves bare and identical; what we know about it becomes a note, which a traceback
shows below the message. Some exceptions refuse attributes, and with them notes: those of frozen
dataclasses do. Such an error must still be the one that leaves, so it goes without.
"""

from __future__ import annotations

from contextlib import suppress

__all__ = ["note"]


def note(error: BaseException, text: str) -> None:
    """Add ``text`` to what a traceback shows of ``error``, if the error lets itself be changed."""
    with suppress(AttributeError):
        error.add_note(text)
