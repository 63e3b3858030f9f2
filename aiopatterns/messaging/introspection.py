"""Introspection: what a running service tells about itself, to anybody who asks on the broker.

::

    $SRV.PING.<service>       who is there     one replica answers
    $SRV.INFO.<service>       what it handles  one replica answers
    $SRV.STATS.<service>      what it has done one replica answers
    $SRV.<verb>.<service>.<id>                 that replica answers

Answers are plain data: programs in other languages read them as well.

Source: the verbs and topics of NATS microservices.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, final

from aiopatterns.core.errors import NoHandlersError
from aiopatterns.messaging.tags import SRV

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiopatterns.messaging.handlers import Handler
    from aiopatterns.messaging.message import Message
    from aiopatterns.messaging.servicerecords import ServiceStatistics

__all__ = ["Introspection", "ping_topic"]


def ping_topic(service: str) -> str:
    """Return the topic on which a service says that it is there."""
    return f"{SRV}.PING.{service}"


@final
class Introspection:
    """Answers for one replica of a service.

    Args:
        version: The service's version.
        needs: The services that it needs.
        handlers: What it handles.
        statistics: Gives the figures.
    """

    __slots__ = ("_handlers", "_needs", "_statistics", "_version")

    def __init__(
        self,
        version: str,
        needs: Iterable[str],
        handlers: Iterable[Handler],
        statistics: Callable[[], ServiceStatistics],
    ) -> None:
        self._version = version
        self._needs = [*needs]
        self._handlers = [*handlers]
        self._statistics = statistics

    def patterns(self, service: str, id: str) -> tuple[tuple[str, str | None], ...]:
        """Return what to listen on, each with its group."""
        return (f"{SRV}.*.{service}", service), (f"{SRV}.*.{service}.{id}", None)

    def answer(self, message: Message) -> dict[str, Any]:
        """Answer one question.

        Raises:
            NoHandlersError: There is no such verb.
        """
        verb = message.topic.split(".")[1]
        figures = self._statistics()
        told: dict[str, Any] = {
            "name": figures.service,
            "id": figures.id,
            "version": self._version,
            "state": figures.state.value,
        }
        if verb == "INFO":
            told |= {"needs": self._needs, "handlers": [_described(it) for it in self._handlers]}
        elif verb == "STATS":
            handlers = [{"name": name} | asdict(it) for name, it in figures.handlers.items()]
            told |= {"uptime": figures.uptime, "handlers": handlers}
        elif verb != "PING":
            raise NoHandlersError(topic=message.topic)
        return told


def _described(handler: Handler) -> dict[str, Any]:
    tag = handler.tag
    if tag.kind == "timer":
        return {"name": handler.name, "kind": tag.kind, "interval": tag.interval}
    return {
        "name": handler.name,
        "kind": tag.kind,
        "topic": tag.topic,
        "group": handler.group,
        "concurrency": tag.concurrency,
    }
