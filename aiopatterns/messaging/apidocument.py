"""AsyncAPI: what services say and listen to, as a document of AsyncAPI 3.0.

::

    handler --> channel    its topic, with a parameter for each wildcard
            --> message    the payload, by its annotation
            --> operation  receive; of a command or query with the reply that it gives

Schemas are JSON Schema, read from the annotations by msgspec. A payload without an annotation, or
of a type that has no schema, may be anything.

Source: the AsyncAPI Specification 3.0.0.
"""

from __future__ import annotations

import re
from inspect import getdoc
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from aiopatterns.core.validate import instance, text
from aiopatterns.messaging.service import Service
from aiopatterns.messaging.topics import ANY, REST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiopatterns.messaging.handlers import Handler

__all__ = ["asyncapi"]

_VERSION: Final = "3.0.0"
_SCHEMAS: Final = "#/components/schemas/{name}"
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]")


def asyncapi(
    *services: Service, title: str | None = None, version: str | None = None
) -> dict[str, Any]:
    """Return the AsyncAPI document of services, ready for JSON.

    Args:
        services: What it is about, at least one.
        title: By default the names of the services.
        version: Of the API; by default that of the first service, or ``"0.0.0"``.

    Raises:
        ValueError: No service, or two of one name.
        TypeError: One is no Service.

    Example::

        print(json.dumps(asyncapi(users, orders), indent=2))
    """
    names = [instance("services", each, Service, "Services").name for each in services]
    if not names or len(set(names)) < len(names):
        msg = f"services must be one service or several of different names, not {names!r}"
        raise ValueError(msg)
    pairs = [
        (each, handler)
        for each in services
        for handler in each.handlers
        if handler.tag.kind != "timer"
    ]
    document = _Document(handler for _, handler in pairs)
    for service, handler in pairs:
        document.add(service.name, handler)
    info = {
        "title": " and ".join(names) if title is None else text("title", title),
        "version": version or services[0].version or "0.0.0",
    }
    return document.made(info)


@final
class _Document:
    """A document that is being made.

    Args:
        handlers: All that it will be about.
    """

    __slots__ = ("_channels", "_ids", "_messages", "_operations", "_schemas", "_shared")

    def __init__(self, handlers: Iterable[Handler]) -> None:
        self._channels: dict[str, Any] = {}
        self._operations: dict[str, Any] = {}
        self._messages: dict[str, Any] = {}
        self._ids: dict[str, str] = {}  # of the channels, by topic
        shapes = [each.shape for each in handlers]
        kinds = [kind for each in shapes for kind in (each.payload_type(), each.result_type())]
        known = [kind for kind in kinds if _has_schema(kind)]
        schemas, self._shared = msgspec.json.schema_components(known, ref_template=_SCHEMAS)
        # A list, not a mapping: types such as Annotated[...] need not be hashable.
        self._schemas = list(zip(known, schemas, strict=True))

    def add(self, service: str, handler: Handler) -> None:
        """Add one handler: its channel, its message, its operation, and its reply."""
        tag, shape = handler.tag, handler.shape
        name = _id(f"{service}.{handler.name}")
        channel = self._channel(tag.topic)
        payload = shape.payload_type() if shape.takes_payload else Any
        operation: dict[str, Any] = {
            "action": "receive",
            "title": f"{tag.kind.capitalize()} {tag.topic}",
            "tags": [{"name": service}, {"name": tag.kind}],
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [self._message(channel, name, payload)],
        }
        about = getdoc(handler.fn)
        if about is not None:
            operation["description"] = about
        if tag.kind != "event":
            operation["reply"] = self._reply(f"{name}.reply", shape.result_type())
        self._operations[name] = operation

    def made(self, info: Mapping[str, str]) -> dict[str, Any]:
        """Return the document."""
        return {
            "asyncapi": _VERSION,
            "info": dict(info),
            "defaultContentType": "application/json",
            "channels": self._channels,
            "operations": self._operations,
            "components": {"messages": self._messages, "schemas": self._shared},
        }

    def _channel(self, topic: str) -> str:
        """Return the id of the channel of a topic; it is made if it is not there."""
        found = self._ids.get(topic)
        if found is not None:
            return found
        tokens = topic.split(".")
        names = {at: f"token{at + 1}" for at, each in enumerate(tokens) if each == ANY}
        if tokens[-1] == REST:
            names[len(tokens) - 1] = "rest"
        address = ".".join(
            f"{{{names[at]}}}" if at in names else each for at, each in enumerate(tokens)
        )
        self._ids[topic] = made = self._unused(_id(address))
        self._channels[made] = {"address": address, "messages": {}}
        if names:
            parameters = {
                name: {
                    "description": "the rest, one or more tokens" if name == "rest" else "one token"
                }
                for name in names.values()
            }
            self._channels[made]["parameters"] = parameters
        return made

    def _unused(self, channel: str) -> str:
        """Return an id for one more channel: ``channel``, or that with a number behind it."""
        made, number = channel, 1
        while made in self._channels:
            number += 1
            made = f"{channel}-{number}"
        return made

    def _message(self, channel: str, name: str, kind: Any) -> dict[str, str]:
        """Add a message to a channel; return what refers to it there."""
        message: dict[str, Any] = {"name": name}
        schema = next((schema for known, schema in self._schemas if known == kind), None)
        if schema is not None:
            message["payload"] = schema
        self._messages[name] = message
        self._channels[channel]["messages"][name] = {"$ref": f"#/components/messages/{name}"}
        return {"$ref": f"#/channels/{channel}/messages/{name}"}

    def _reply(self, name: str, kind: Any) -> dict[str, Any]:
        """Add the reply; its channel has no address, for it goes to whoever has asked."""
        channel = self._unused(name)
        self._channels[channel] = {"address": None, "messages": {}}
        return {
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [self._message(channel, name, kind)],
        }


def _has_schema(kind: Any) -> bool:
    if kind is Any:
        return False
    try:
        msgspec.json.schema(kind)
    except Exception:  # msgspec can make it and has no words for it
        return False
    return True


def _id(name: str) -> str:
    """Return ``name`` in the characters that keys of a document may have."""
    return _UNFIT.sub("_", name)
