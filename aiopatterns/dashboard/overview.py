"""What a dashboard shows: the records of one look at a fleet, as they go to the page."""

from __future__ import annotations

from typing import Any, final

import msgspec

__all__ = [
    "FlowView",
    "InstanceView",
    "NodeView",
    "Overview",
    "OwnerView",
    "QueueView",
    "ServiceView",
    "StreamView",
    "WorkerView",
]


@final
class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """A queue of jobs.

    Attributes:
        name: Its name.
        queued: Jobs that a worker could take.
        scheduled: Jobs that wait for their time.
        waiting: Jobs that wait for others.
        running: Jobs in workers.
        dead: Dead letters.
        paused: Whether nothing is given out.
        workers: Workers that are alive.
        throughput: Jobs that are done in a second.
        p50: Half of the attempts take no longer, in seconds.
        p99: 99 % take no longer.
    """

    name: str
    queued: int
    scheduled: int
    waiting: int
    running: int
    dead: int
    paused: bool
    workers: int
    throughput: float
    p50: float | None
    p99: float | None


@final
class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker: where it runs, the seconds since it began, and its figures."""

    name: str
    host: str
    pid: int
    number: str
    age: float
    figures: dict[str, Any]


@final
class OwnerView(msgspec.Struct, frozen=True, kw_only=True):
    """Anything else that is published: a breaker, a cache, a limiter, a peer."""

    kind: str
    name: str
    host: str
    pid: int
    number: str
    age: float
    figures: dict[str, Any]


@final
class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """One process that serves a service; ``stale`` if its record cannot be read."""

    id: str
    host: str
    port: int
    state: str
    zone: str | None
    version: str
    stale: bool


@final
class ServiceView(msgspec.Struct, frozen=True):
    """A service and its instances."""

    service: str
    instances: list[InstanceView]


@final
class StreamView(msgspec.Struct, frozen=True):
    """What one group of consumers has to do: entries nobody has claimed, and those in hand."""

    name: str
    group: str
    lag: int
    pending: int


@final
class NodeView(msgspec.Struct, frozen=True):
    """A box in the picture of a flow."""

    id: str
    state: str
    label: str


@final
class FlowView(msgspec.Struct, frozen=True):
    """A graph of tasks, a pipeline or a saga, and how far it is.

    Attributes:
        kind: ``dag``, ``pipeline`` or ``saga``.
        name: Its name.
        id: Of one run; empty for the flow as such.
        nodes: Its boxes.
        edges: Its arrows, by the ids of the boxes.
    """

    kind: str
    name: str
    id: str
    nodes: list[NodeView]
    edges: list[tuple[str, str]]


@final
class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet at one moment.

    Attributes:
        at: When, in seconds since 1970.
        backend: Where, the password masked.
        actions: Whether the page may change something.
        queues: Queues by name.
        workers: Workers by name.
        owners: What else is published.
        services: Services and their instances.
        streams: Groups of consumers.
        flows: Graphs, pipelines and sagas.
    """

    at: float
    backend: str
    actions: bool
    queues: list[QueueView]
    workers: list[WorkerView]
    owners: list[OwnerView]
    services: list[ServiceView]
    streams: list[StreamView]
    flows: list[FlowView]
