"""The record of an instance as it stands in a directory: JSON, so that other languages write it too.

::

    directory svc:users
        member a-1   {"format":1,"state":"ready","epoch":1790000000000000,"host":"10.0.0.1",
                      "port":8000,"version":"1.4","weight":1.0,"zone":"eu-1","metadata":{}}

The name of the service is that of the directory and the id is the member, so neither can disagree
with the record. ``epoch`` is the fence under which it was put, for whoever wants to replace it.
``left`` is the state of an instance that has said goodbye; it is nobody's state while it lives.

Guarantees:

* Any bytes are read, or refused by one error. What a stranger wrote never raises anything else.
* A release reads what the release before it wrote: fields are only added, with a default.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, Literal, TypeAlias, final

import msgspec

from aiopatterns.cluster.instance import InstanceState, ServiceInstance
from aiopatterns.core.codec import JSON
from aiopatterns.core.errors import CodecError, UnknownVersionError

__all__ = ["FORMAT", "LEFT", "Record", "RecordState", "read", "written"]

#: The format that this release writes.
FORMAT: Final = 1
#: The state of one that has left.
LEFT: Final = "left"

RecordState: TypeAlias = Literal["starting", "ready", "draining", "left"]


@final
class _Wire(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the directory."""

    format: int
    state: RecordState
    epoch: int
    host: str
    port: int
    version: str = ""
    weight: float = 1.0
    zone: str | None = None
    metadata: dict[str, str] = {}


@final
class Record(msgspec.Struct, frozen=True):
    """What a record says.

    Attributes:
        instance: Whose it is.
        state: Its state; None if it has left.
        epoch: The fence under which it was put.
    """

    instance: ServiceInstance
    state: InstanceState | None
    epoch: int


_wire_of = JSON.decoder(_Wire)
_STATES: Final = MappingProxyType({each.value: each for each in InstanceState})


def written(instance: ServiceInstance, state: RecordState, *, epoch: int) -> bytes:
    """Return the record of ``instance`` in bytes, always the same for the same arguments."""
    return JSON.encode(
        _Wire(
            format=FORMAT,
            state=state,
            epoch=epoch,
            host=instance.host,
            port=instance.port,
            version=instance.version,
            weight=instance.weight,
            zone=instance.zone,
            metadata=dict(instance.metadata),
        )
    )


def read(service: str, member: str, data: bytes) -> Record:
    """Read the record of ``member`` of ``service``.

    Raises:
        UnknownVersionError: A newer release has written it.
        CodecError: It is no record, or none of an instance that could be called.

    Complexity: O(size).
    """
    wire = _wire_of(data)
    if wire.format != FORMAT:
        raise UnknownVersionError(version=wire.format)
    try:
        instance = ServiceInstance(
            service,
            wire.host,
            wire.port,
            id=member,
            version=wire.version,
            weight=wire.weight,
            zone=wire.zone,
            metadata=wire.metadata,
        )
    except ValueError as error:
        msg = f"the record of {member!r} in service {service!r} is of no instance: {error}"
        raise CodecError(msg) from error
    return Record(instance, _STATES.get(wire.state), wire.epoch)
