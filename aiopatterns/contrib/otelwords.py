"""The words of OpenTelemetry's semantic conventions for what the library does.

Pure translation: a step in the words of :mod:`aiopatterns.core.tracing` becomes a span's name, its
kind, its attributes, and those few of them that a metric may have.

Source: OpenTelemetry semantic conventions 1.37, messaging (development) and HTTP (stable).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from opentelemetry.trace import SpanKind

from aiopatterns.core.tracing import Messages, Request

if TYPE_CHECKING:
    from aiopatterns.core.tracing import Endpoint, Step

__all__ = ["OTHER", "Attributes", "Words", "in_words_of_otel", "is_failure"]

Value: TypeAlias = str | int | float | bool
Attributes: TypeAlias = dict[str, Value]

#: What the conventions call a value that is one of too many.
OTHER: Final = "_OTHER"
_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_KINDS: Final = MappingProxyType(
    {"send": SpanKind.PRODUCER, "request": SpanKind.CLIENT, "process": SpanKind.CONSUMER}
)
# First status that is an error, for the side that gives it and the side that gets it.
_FAILURES: Final = MappingProxyType({"server": 500, "client": 400})


class Words(NamedTuple):
    """A step in the words of OpenTelemetry.

    Attributes:
        name: Name of the span.
        kind: Its kind.
        attributes: Its attributes.
        labels: Those that its metric has; few values each, but for the destination.
    """

    name: str
    kind: SpanKind
    attributes: Attributes
    labels: Attributes


def in_words_of_otel(step: Step) -> Words:
    """Return a step in the words of OpenTelemetry."""
    if isinstance(step, Messages):
        return _messages(step)
    if isinstance(step, Request):
        return _request(step)
    return _endpoint(step)


def is_failure(step: Step, status: int) -> bool:
    """Whether an answer of this status is an error of the step."""
    return isinstance(step, Request) and status >= _FAILURES[step.side]


def _messages(step: Messages) -> Words:
    labels: Attributes = {
        "messaging.system": f"aiopatterns.{step.system}",
        "messaging.operation.name": step.action,
        "messaging.operation.type": "process" if step.verb == "process" else "send",
        "messaging.destination.name": step.template or step.destination,
    }
    if step.group is not None:
        labels["messaging.consumer.group.name"] = step.group
    attributes = labels | {"messaging.destination.name": step.destination}
    more: dict[str, Value | None] = {
        "messaging.destination.template": step.template,
        "messaging.message.id": step.id,
        "messaging.message.conversation_id": step.correlation,
        "messaging.batch.message_count": step.batch,
        "aiopatterns.subject": step.subject or None,
        "aiopatterns.attempt": step.attempt if step.verb == "process" else None,
    }
    attributes |= {name: value for name, value in more.items() if value is not None}
    name = f"{step.action} {step.template or step.destination}"
    return Words(name, _KINDS[step.verb], attributes, labels)


def _request(step: Request) -> Words:
    known = step.method in _METHODS
    method = step.method if known else OTHER
    labels: Attributes = {"http.request.method": method, "url.scheme": step.scheme}
    attributes: Attributes = {**labels, "url.path": step.path}
    if not known:
        attributes["http.request.method_original"] = step.method
    address: Attributes = {"server.address": step.host} if step.host else {}
    if step.port is not None:
        address["server.port"] = step.port
    attributes |= address
    if step.side == "server":
        return Words(method if known else "HTTP", SpanKind.SERVER, attributes, labels)
    place = step.host if step.port is None else f"{step.host}:{step.port}"
    attributes["url.full"] = f"{step.scheme}://{place}{step.path}"
    return Words(method if known else "HTTP", SpanKind.CLIENT, attributes, labels | address)


def _endpoint(step: Endpoint) -> Words:
    attributes: Attributes = {
        "aiopatterns.service": step.service,
        "server.address": step.host,
        "server.port": step.port,
    }
    return Words(f"call {step.service}", SpanKind.CLIENT, attributes, {})
