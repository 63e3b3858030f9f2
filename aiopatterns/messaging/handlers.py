"""Handlers: the functions of one service, each with its tag, its name and the shape of its calls.

Replicas of a service know each other's handlers by name alone, so names follow from the code: the
function's name, and a number behind it for the second one of that name.

Events have a group for each handler. If all handlers of a service shared one, two of them that
want the same event would have to take turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from aiopatterns.core.validate import function
from aiopatterns.messaging.callplan import CallPlan, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiopatterns.messaging.tags import Tag
    from aiopatterns.resilience.policy import Policy

__all__ = ["Handler", "Handlers"]


@final
class Handler:
    """One function of a service.

    Args:
        service: The service's name.
        name: The handler's name.
        tag: What calls it.
        fn: The function.

    Raises:
        TypeError: The function cannot be called with what it would get.
    """

    __slots__ = ("fn", "group", "name", "shape", "tag")

    def __init__(self, service: str, name: str, tag: Tag, fn: Callable[..., Any]) -> None:
        self.name: str = name
        self.tag: Tag = tag
        self.fn: Callable[..., Any] = fn
        self.shape: Shape = Shape(fn, payload=tag.kind != "timer")
        #: Replicas of it, of which one gets each message.
        self.group: str = f"{service}/{name}" if tag.kind == "event" else service

    def plan(self, stack: Policy | None) -> CallPlan:
        """Return how it is called.

        Args:
            stack: The service's policy, for a handler without one of its own.
        """
        return CallPlan(self.fn, self.shape, stack if self.tag.stack is None else self.tag.stack)


@final
class Handlers:
    """All functions of one service, in the order in which they were added.

    Args:
        service: The service's name.
    """

    __slots__ = ("_by_name", "_service", "_topics")

    def __init__(self, service: str) -> None:
        self._service = service
        self._by_name: dict[str, Handler] = {}
        self._topics: set[str] = set()

    def __iter__(self) -> Iterator[Handler]:
        """Give them in the order in which they were added."""
        return iter([*self._by_name.values()])

    def __len__(self) -> int:
        return len(self._by_name)

    def add(self, tag: Tag, fn: Callable[..., Any]) -> None:
        """Add a function.

        Raises:
            ValueError: Its topic has a command or query already.
            TypeError: It is no function, or cannot be called with what it would get.
        """
        answers = tag.kind in ("command", "query")
        if answers and tag.topic in self._topics:
            msg = f"topic must be new in service {self._service!r}, not {tag.topic!r} once more"
            raise ValueError(msg)
        handler = Handler(self._service, self._name(function("fn", fn)), tag, fn)
        self._by_name[handler.name] = handler
        if answers:
            self._topics.add(tag.topic)

    def _name(self, fn: Callable[..., Any]) -> str:
        first = name = getattr(fn, "__name__", None) or type(fn).__name__
        number = 1
        while name in self._by_name:
            number += 1
            name = f"{first}-{number}"
        return name
