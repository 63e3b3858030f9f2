"""One process that serves something: the record that registries, balancers and callers share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Any, Final, final

from aiopatterns.core.context import new_id
from aiopatterns.core.validate import count, instance, non_negative, text

__all__ = ["InstanceState", "ServiceInstance", "service_name"]

#: Longest name, id, version, zone and host, in characters (a DNS name has at most 253).
LONGEST: Final = 255
_NAME: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{{0,{LONGEST - 1}}}")
_VERSION: Final = re.compile(rf"[A-Za-z0-9_.+-]{{0,{LONGEST}}}")
# A name or an address, IPv6 with or without brackets; a URL, a path or a port is a mistake here.
_HOST: Final = re.compile(
    rf"[A-Za-z0-9_]([A-Za-z0-9_.-]{{0,{LONGEST - 1}}})|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%\w+)?\]?"
)
_LAST_PORT: Final = 65_535
# Weights that arithmetic can bear, whatever is summed up and multiplied.
_LIGHTEST: Final = 1e-9
_HEAVIEST: Final = 1e9


class InstanceState(Enum):
    """Whether an instance wants calls; only ``READY`` ones are balanced."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@final
@dataclass(frozen=True, slots=True, init=False)
class ServiceInstance:
    """Where one process serves a service, and what a caller may want to know of it.

    Args:
        service: Name of the service: letters, digits and ``_.:@+-``, at most 255.
        host: Name or address without a scheme, a path or a port.
        port: 1 to 65,535.
        id: Stable identity, of the same characters. None for one by chance, another for each record
            made; a process that names one takes the place of the process before it that had it.
        version: Any version text of letters, digits and ``_.+-``; empty if there is none.
        weight: Share of the calls, from 1e-9 to 1e9, or 0: that gets none while there are others.
        zone: Where it stands, for balancers that prefer near ones; None if that does not matter.
        metadata: Anything else, text to text; a copy is kept that nobody can change.

    Raises:
        ValueError: A field is out of its range; the text names it.
        TypeError: A field is of another type.
    """

    service: str
    host: str
    port: int
    id: str = field(kw_only=True)
    version: str = field(kw_only=True)
    weight: float = field(kw_only=True)
    zone: str | None = field(kw_only=True)
    metadata: Mapping[str, str] = field(kw_only=True, hash=False)

    def __init__(
        self,
        service: str,
        host: str,
        port: int,
        *,
        id: str | None = None,
        version: str = "",
        weight: float = 1,
        zone: str | None = None,
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        fields = {
            "service": service_name("service", service),
            "host": _matched(
                "host", host, _HOST, "a host name or an address, without scheme and port"
            ),
            "port": _port(port),
            "id": new_id() if id is None else service_name("id", id),
            "version": _matched("version", version, _VERSION, "letters, digits and _.+-, or empty"),
            "weight": _weight(weight),
            "zone": None if zone is None else service_name("zone", zone),
            "metadata": _metadata(metadata),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[partial[ServiceInstance], tuple[()]]:
        """Copy and pickle by the fields: a read-only view of a mapping has no way of its own."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return partial(ServiceInstance, **fields | {"metadata": dict(self.metadata)}), ()

    @property
    def address(self) -> str:
        """Host and port as one text, an IPv6 address in brackets."""
        host = self.host
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"{host}:{self.port}"


def service_name(name: str, value: str) -> str:
    """Return ``value`` if it may name a service, an instance or a zone."""
    return _matched(
        name,
        text(name, value),
        _NAME,
        f"letters, digits and _.:@+- (the first a letter, digit or _), at most {LONGEST}",
    )


def _matched(name: str, value: str, pattern: re.Pattern[str], allowed: str) -> str:
    instance(name, value, str, "text")
    if not pattern.fullmatch(value):
        msg = f"{name} must be {allowed}, not {value!r}"
        raise ValueError(msg)
    return value


def _port(value: int) -> int:
    if count("port", value) > _LAST_PORT:
        msg = f"port must be from 1 to {_LAST_PORT}, not {value!r}"
        raise ValueError(msg)
    return value


def _weight(value: float) -> float:
    if non_negative("weight", value) and not _LIGHTEST <= value <= _HEAVIEST:
        msg = f"weight must be 0, or from {_LIGHTEST} to {_HEAVIEST}, not {value!r}"
        raise ValueError(msg)
    return value


def _metadata(given: Mapping[str, str]) -> Mapping[str, str]:
    instance("metadata", given, Mapping, "a mapping of text to text")
    for key, value in given.items():
        text("metadata's keys", key)
        instance(f"metadata[{key!r}]", value, str, "text")
    return MappingProxyType(dict(given))
