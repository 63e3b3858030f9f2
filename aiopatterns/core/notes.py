"""Notes on errors that are not ours: where it happened, and what else went wrong.

A user's error leaves bare and identical; what we know about it becomes a note, which a traceback
shows below the message. Some exceptions refuse attributes, and with them notes: those of frozen
dataclasses do. Such an error must still be the one that leaves, so it goes without. In the same way
the text of an error is made by its own method, which may fail.
"""

from __future__ import annotations

from contextlib import suppress

__all__ = ["in_words", "note"]


def note(error: BaseException, text: str) -> None:
    """Add ``text`` to what a traceback shows of ``error``, if the error lets itself be changed."""
    with suppress(AttributeError):
        error.add_note(text)


def in_words(error: BaseException) -> str:
    """Return type and text of ``error``, or the type alone if its text cannot be had."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__
