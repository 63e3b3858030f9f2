"""Watchers: plain functions that are called when one object has changed.

A listener of events hears of all objects in the process, and while there is one, every pattern has
to build its events. Whoever follows a single object watches that.

Guarantees: watchers are called last, when the object is consistent, in the order in which they
came; one that fails is logged and breaks nothing. Without any, a change costs one look.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, ParamSpec, final

from aiopatterns.core.telemetry import Subscription
from aiopatterns.core.validate import plain_function

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watchers"]

P = ParamSpec("P")


@final
class Watchers(Generic[P]):
    """Those who watch one object.

    Args:
        name: Of the object, for the log.
    """

    __slots__ = ("_functions", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._functions: tuple[Callable[P, object], ...] = ()

    def add(self, function: Callable[P, object]) -> Subscription:
        """Call ``function`` at each change until the subscription is closed.

        Added twice, it is called twice.

        Raises:
            TypeError: It is no plain function.
        """
        self._functions = (*self._functions, plain_function("watcher", function))
        return Subscription(lambda: self._remove(function))

    def call(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """The object has changed: call all of them."""
        for function in self._functions:
            try:
                function(*args, **kwargs)
            except Exception:
                logging.getLogger("aiopatterns").exception("a watcher of %s failed", self._name)

    def _remove(self, function: Callable[P, object]) -> None:
        left = list(self._functions)
        left.remove(function)
        self._functions = tuple(left)
