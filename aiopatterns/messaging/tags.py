"""Tags: what a function is to a service, noted at the function and nowhere else.

::

    @command("order.create")  one service handles it, and may answer
    @query("order.get")       one service answers it
    @event("user.*")          whoever wants to know; one replica of each service
    @every(30)                the clock, on every replica

They change nothing: a tagged function or method is called in tests as it stands. A service finds
the tags of an object's methods by :meth:`Service.from_object <aiopatterns.messaging.Service>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, cast, final

from aiopatterns.core.validate import count, function, instance, optional_function, positive
from aiopatterns.messaging.topics import topic_name, topic_pattern
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiopatterns.messaging.intake import KeyOf

__all__ = [
    "CONCURRENCY",
    "SRV",
    "HandlerKind",
    "Tag",
    "command",
    "event",
    "every",
    "query",
    "tagged",
]

F = TypeVar("F", bound="Callable[..., object]")

HandlerKind: TypeAlias = Literal["command", "query", "event", "timer"]

#: Messages in a handler at a time: more than MAX_HOPS, so that services which ask each other in a
#: circle are told so, and do not wait for each other's last free place.
CONCURRENCY: Final = 64
#: The first token of the topics on which services tell about themselves.
SRV: Final = "$SRV"
# Under this name a function keeps its tags.
_TAGS: Final = "__aiopatterns_tags__"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """How a function is called by a service.

    Attributes:
        kind: What calls it.
        topic: The topic of commands and queries, the pattern of events; empty for the clock.
        interval: Seconds between two calls by the clock; 0 for messages.
        stack: The policy around its calls, instead of the service's, or None.
        concurrency: Messages in it at a time, in one replica.
        key: Gives the key of a message: those of one key are handled one after the other; or None.
    """

    kind: HandlerKind
    topic: str = ""
    interval: float = 0.0
    stack: Policy | None = None
    concurrency: int = CONCURRENCY
    key: KeyOf | None = None

    def __post_init__(self) -> None:
        """Refuse what no service could do.

        Raises:
            ValueError: A value is out of its range; the text names it.
            TypeError: A value is of another type.
        """
        if self.kind == "timer":
            positive("seconds", self.interval)
        elif self.kind == "event":
            topic_pattern("topic", self.topic)
        else:
            topic_name("topic", self.topic)
        if self.topic.partition(".")[0] == SRV:
            msg = f"topic must not begin with {SRV}, where services tell about themselves"
            raise ValueError(msg)
        if self.stack is not None:
            instance("stack", self.stack, Policy, "a Stack or another policy, or None")
        count("concurrency", self.concurrency)
        optional_function("key", self.key)


def command(
    topic: str,
    *,
    stack: Policy | None = None,
    concurrency: int = CONCURRENCY,
    key: KeyOf | None = None,
) -> Callable[[F], F]:
    """Tag a method that does something when told to; see :meth:`Service.command`."""
    return _tagging(Tag(kind="command", topic=topic, stack=stack, concurrency=concurrency, key=key))


def query(
    topic: str,
    *,
    stack: Policy | None = None,
    concurrency: int = CONCURRENCY,
    key: KeyOf | None = None,
) -> Callable[[F], F]:
    """Tag a method that answers; see :meth:`Service.query`."""
    return _tagging(Tag(kind="query", topic=topic, stack=stack, concurrency=concurrency, key=key))


def event(
    topic: str,
    *,
    stack: Policy | None = None,
    concurrency: int = CONCURRENCY,
    key: KeyOf | None = None,
) -> Callable[[F], F]:
    """Tag a method that wants to know; see :meth:`Service.event`."""
    return _tagging(Tag(kind="event", topic=topic, stack=stack, concurrency=concurrency, key=key))


def every(seconds: float, *, stack: Policy | None = None) -> Callable[[F], F]:
    """Tag a method that the clock calls; see :meth:`Service.every`."""
    return _tagging(Tag(kind="timer", interval=seconds, stack=stack))


def tagged(obj: object) -> Iterator[tuple[Tag, Callable[..., object]]]:
    """Give the tags of an object's methods with the bound methods, in the order of definition.

    A method that a subclass overrides has the tags of the subclass alone.
    """
    names = {name: None for kind in reversed(type(obj).__mro__) for name in vars(kind)}
    for name in names:
        found = next(vars(kind)[name] for kind in type(obj).__mro__ if name in vars(kind))
        for tag in _tags(found):
            yield tag, getattr(obj, name)


def _tags(fn: object) -> tuple[Tag, ...]:
    fn = getattr(fn, "__func__", fn)  # of a static or class method
    return cast("tuple[Tag, ...]", getattr(fn, "__dict__", {}).get(_TAGS, ()))


def _tagging(tag: Tag) -> Callable[[F], F]:
    def decorate(fn: F) -> F:
        noted: Any = function("fn", fn)
        setattr(noted, _TAGS, (*_tags(noted), tag))
        return fn

    return decorate
