"""What a registry knows of one service at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.cluster.instance import InstanceState, ServiceInstance

__all__ = ["Snapshot"]


def _nobody() -> Mapping[str, InstanceState]:
    return MappingProxyType({})


@final
@dataclass(frozen=True, slots=True)
class Snapshot:
    """The instances of one service.

    ``instances`` is what to call. An instance that is starting or draining, or that has stopped
    renewing, is in none of the two tuples of callable ones, unless self-preservation has kept it:
    then it is in ``stale``, to be tried when nobody else is left.

    Attributes:
        instances: Those that are ready, by their ids.
        stale: Those whose lease has run out together with too many others for that to be
            believed, by their ids; they may be dead.
        revision: Grows with every change of the service's records; two snapshots with the same
            number hold the same records, though ``stale`` may differ.
        age: Seconds since the backend confirmed this; 0.0 for what was just read.
        states: The state of every living instance by its id, also of those that are starting or
            draining.
    """

    instances: tuple[ServiceInstance, ...] = ()
    stale: tuple[ServiceInstance, ...] = ()
    revision: int = 0
    age: float = 0.0
    states: Mapping[str, InstanceState] = field(default_factory=_nobody, hash=False)
