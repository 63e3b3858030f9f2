"""One call that a thread claims, unless its caller has withdrawn it before.

Guarantees:

* A call that was withdrawn never runs, and one that runs cannot be withdrawn: caller and thread
  contend for one claim, and one of them gets it.
* The outcome is kept here, not in the future of the thread: a future refuses ``StopIteration``, and
  reports errors that nobody asks for, as of a caller that was cancelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ThreadCall"]


@final
class ThreadCall:
    """A function and its arguments, to be called once, in a thread.

    Args:
        fn: The function.
        args: Its arguments.

    ``value`` and ``error`` are what it came to, when it has run.
    """

    __slots__ = ("_args", "_claim", "_fn", "error", "value")

    def __init__(self, fn: Callable[..., object], args: tuple[object, ...]) -> None:
        self._fn = fn
        self._args = args
        self._claim = [None]  # list.pop is atomic between threads
        self.value: object = None
        self.error: BaseException | None = None

    def withdraw(self) -> bool:
        """Take the claim; False if the function runs already."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    def __call__(self) -> None:
        """Run in the thread."""
        if not self.withdraw():
            return
        try:
            self.value = self._fn(*self._args)
        except BaseException as error:  # the caller's, in whose place this runs
            self.error = error
