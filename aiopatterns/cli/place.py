"""The file that a command writes: its place is reserved before anything begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiopatterns.cli.exits import UsageError
from aiopatterns.processor.output import Output

if TYPE_CHECKING:
    from contextlib import ExitStack

__all__ = ["reserved"]


def reserved(stack: ExitStack, option: str, path: str) -> Output:
    """Make sure that a file can be written before the work begins.

    Args:
        stack: Gives the place up when it closes, if nothing was written.
        option: What names the file on the command line.
        path: Its name.

    Raises:
        UsageError: It is empty or cannot be written; the message names option, reason and file.
    """
    if not path:  # an unset variable of a script, not this folder
        raise UsageError(f"{option} must name a file, and is empty")
    try:
        return stack.enter_context(Output(path))
    except OSError as error:
        raise UsageError(f"{option} cannot be written: {error.strerror}: {path}") from error
