"""Fleet: one look at all that runs over a backend.

::

    directory "statistics" ---> workers, owners, flows        1 round trip
    queues of the workers  ---> how many jobs are where       1 for each part
    services that are named ---> their instances              1 for each
    groups of consumers    ---> lag                           1 for each

Whatever is read was written by others: what is no plain data of the expected form is left out, and
all of it is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

import msgspec

from aiopatterns.backends.publishing import published
from aiopatterns.cluster.instance import service_name
from aiopatterns.cluster.record import read
from aiopatterns.cluster.registration import directory_name
from aiopatterns.core.clock import wall
from aiopatterns.core.errors import CodecError
from aiopatterns.dashboard.overview import (
    FlowView,
    InstanceView,
    Overview,
    OwnerView,
    QueueView,
    ServiceView,
    StreamView,
    WorkerView,
)
from aiopatterns.dashboard.pace import Counter, Pace
from aiopatterns.flow.mapping import amap
from aiopatterns.jobs.statistics import summed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.publishing import Published
    from aiopatterns.dashboard.queues import KnownQueue, Queues

__all__ = ["FLOWS", "PARTITIONS", "SERVICES", "Fleet"]

#: Figures under which a publisher tells flows, parts of a queue, and names of services.
FLOWS: Final = "flows"
PARTITIONS: Final = "partitions"
SERVICES: Final = "services"
# What is shown at most, of each kind.
_MOST: Final = 200

V = TypeVar("V")


@final
class Fleet:
    """Looks at what runs over a backend.

    Args:
        backend: It is open while looks are taken.
        queues: Those that are known.
        actions: Whether the page may change something.
    """

    __slots__ = ("_actions", "_backend", "_pace", "_queues")

    def __init__(self, backend: Backend, queues: Queues, *, actions: bool) -> None:
        self._backend = backend
        self._queues = queues
        self._actions = actions
        self._pace = Pace()

    async def look(self) -> Overview:
        """Return the fleet of this moment.

        Raises:
            BackendError: The backend does not answer.

        Complexity: O(owners + queues), a few round trips.
        """
        found = await published(self._backend)
        found.sort(key=lambda each: (each.kind, each.name, each.host, each.pid, each.number))
        workers = [each for each in found if each.kind == "worker"]
        others = [each for each in found if each.kind != "worker"]
        at = wall()
        return Overview(
            at=at,
            backend=self._backend.url,
            actions=self._actions,
            queues=await self._looked(workers, _published_queues(others)),
            workers=[_worker(each, at) for each in workers[:_MOST]],
            owners=[_owner(each, at) for each in others[:_MOST]],
            services=await amap(self._service, sorted(_services(others))[:_MOST]),
            streams=await self._streams(others),
            flows=[flow for each in others for flow in _flows(each)][:_MOST],
        )

    async def _looked(self, workers: list[Published], named: Mapping[str, int]) -> list[QueueView]:
        """Return the queues, with what their workers say of them."""
        counters: dict[tuple[str, str], Counter] = {}
        for each in workers:
            for name, figures in _table(_figures(each), "queues").items():
                counters[each.number, name] = Counter(_count(figures, "processed"), each.at)
        paces = self._pace.look(counters)
        known = await self._queues.meet({**dict.fromkeys(paces, 0), **named})
        counts = await amap(_summed, known)
        return [
            QueueView(
                name=queue.name,
                queued=found.queued,
                scheduled=found.scheduled,
                waiting=found.waiting,
                running=found.running,
                dead=found.dead,
                paused=found.paused,
                workers=found.workers,
                throughput=round(paces.get(queue.name, 0.0), 3),
                p50=_typical(workers, queue.name, "p50"),
                p99=_worst(workers, queue.name, "p99"),
            )
            for queue, found in zip(known, counts, strict=True)
        ]

    async def _service(self, service: str) -> ServiceView:
        """Return the instances of a service."""
        members = (await self._backend.directory(directory_name(service)).snapshot()).members
        return ServiceView(
            service, [_instance(service, each, members[each]) for each in sorted(members)[:_MOST]]
        )

    async def _streams(self, owners: list[Published]) -> list[StreamView]:
        """Return the groups whose consumers are published."""
        in_hand: dict[str, int] = {}
        for each in owners:
            if each.kind == "consumer" and "/" in each.name:
                pending = _count(_figures(each), "in_hand")
                in_hand[each.name] = in_hand.get(each.name, 0) + pending
        found = await amap(self._stream, list(in_hand.items())[:_MOST])
        return [each for each in found if each is not None]

    async def _stream(self, of: tuple[str, int]) -> StreamView | None:
        name, _, group = of[0].rpartition("/")
        try:
            lag = await self._backend.log(name).lag(group)
        except ValueError:  # no such group, or no name at all
            return None
        return StreamView(name, group, lag, of[1])


async def _summed(queue: KnownQueue) -> Any:
    return summed(await queue.counts())


def _worker(who: Published, at: float) -> WorkerView:
    return WorkerView(
        name=who.name,
        host=who.host,
        pid=who.pid,
        number=who.number,
        age=max(0.0, at - who.started_at),
        figures=_figures(who),
    )


def _owner(who: Published, at: float) -> OwnerView:
    figures = {key: value for key, value in _figures(who).items() if key != FLOWS}
    return OwnerView(
        kind=who.kind,
        name=who.name,
        host=who.host,
        pid=who.pid,
        number=who.number,
        age=max(0.0, at - who.started_at),
        figures=figures,
    )


def _instance(service: str, id: str, data: bytes) -> InstanceView:
    """Return an instance as its record says it is; of one that cannot be read, its id."""
    try:
        record = read(service, id, data)
    except CodecError:
        return InstanceView(
            id=id, host="", port=0, state="unknown", zone=None, version="", stale=True
        )
    one = record.instance
    state = "left" if record.state is None else record.state.value
    return InstanceView(
        id=one.id,
        host=one.host,
        port=one.port,
        state=state,
        zone=one.zone,
        version=one.version,
        stale=False,
    )


def _published_queues(owners: Iterable[Published]) -> dict[str, int]:
    """Return the queues that producers publish, and in how many parts they are kept."""
    return {
        each.name: _count(_figures(each), PARTITIONS) for each in owners if each.kind == "queue"
    }


def _services(owners: Iterable[Published]) -> set[str]:
    """Return the services that registries of all processes name."""
    found: set[str] = set()
    for each in owners:
        names: object = _figures(each).get(SERVICES)
        if isinstance(names, list):
            found.update(each for each in cast("list[str]", names) if _is_service(each))
    return found


def _is_service(name: str) -> bool:
    try:
        service_name("service", name)
    except (TypeError, ValueError):
        return False
    return True


def _flows(who: Published) -> list[FlowView]:
    try:
        return msgspec.convert(_figures(who).get(FLOWS, []), list[FlowView])
    except msgspec.ValidationError:
        return []


def _figures(who: Published) -> dict[str, Any]:
    return who.figures or {}


def _table(figures: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: object = figures.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _count(figures: object, name: str) -> int:
    found = cast("dict[str, object]", figures).get(name) if isinstance(figures, dict) else None
    return found if isinstance(found, int) else 0


def _times(workers: Iterable[Published], queue: str, name: str) -> list[tuple[float, int]]:
    """Return a quantile of each worker of ``queue`` that has one, and how much it counts."""
    found: list[tuple[float, int]] = []
    for each in workers:
        figures = _figures(each)
        value, queues = figures.get(name), _table(figures, "queues")
        if isinstance(value, (int, float)) and queue in queues:
            found.append((float(value), _count(queues[queue], "processed")))
    return found


def _typical(workers: Iterable[Published], queue: str, name: str) -> float | None:
    """Return the quantile of all workers together, roughly: by how much each has done."""
    found = _times(workers, queue, name)
    done = sum(weight for _, weight in found)
    return sum(value * weight for value, weight in found) / done if done else None


def _worst(workers: Iterable[Published], queue: str, name: str) -> float | None:
    return max((value for value, _ in _times(workers, queue, name)), default=None)
