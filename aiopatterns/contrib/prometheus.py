"""Prometheus: counters and histograms of what happens, gauges of what stands.

::

    events  --listener--> aiopatterns_events_total{event, owner}
                          aiopatterns_jobs_total{queue, job, outcome}
                          aiopatterns_job_seconds{queue, job}               histogram
                          aiopatterns_http_request_seconds{gateway, route, method, status}
                          aiopatterns_circuit_state{circuit}                0 closed .. 2 open
    owners  --at each scrape--> aiopatterns_<kind>_<figure>{name}           gauges
    queues  --every 5 s-------> aiopatterns_queue_jobs{queue, state} ...    :class:`QueueGauges`

Guarantees: a label that users choose (names of queues, jobs, routes, circuits) has at most
:data:`MAX_NAMES` values in a metric, all others count as ``other``; ids, paths, keys and errors
are no labels. A scrape waits for nothing and asks no server; an owner whose figures cannot be had
is left out of it.

Not guaranteed: figures in the multi-process mode of prometheus_client, whose files hold no gauges of
collectors.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from aiopatterns.core.telemetry import Subscription, install_listener

try:
    from prometheus_client import REGISTRY, Counter, Gauge, Histogram
except ImportError:
    raise ImportError(
        "aiopatterns.contrib.prometheus needs prometheus_client:"
        " pip install 'aiopatterns[prometheus]'"
    ) from None

from aiopatterns.contrib.promlabels import MAX_NAMES, Names
from aiopatterns.contrib.promowners import OwnerFigures
from aiopatterns.contrib.promqueues import QueueGauges

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import CollectorRegistry

    from aiopatterns.core.telemetry import Event

__all__ = ["MAX_NAMES", "QueueGauges", "instrument"]

M = TypeVar("M", Counter, Gauge, Histogram)

_JOB: Final = "aiopatterns.job."
_ANSWERED: Final = "aiopatterns.gateway.answered"
_HTTP: Final = ("gateway", "route", "method", "status")
# The state that an event says a circuit is in; to be drawn, so the worse the higher.
_CIRCUITS: Final = (
    ("aiopatterns.circuit.closed", 0),
    ("aiopatterns.circuit.half_opened", 1),
    ("aiopatterns.circuit.opened", 2),
    ("aiopatterns.circuit.opened_by_fleet", 2),
)
# Fields of events that name who tells them; they stand first.
_OWNERS: Final = frozenset(
    {
        "broker",
        "bulkhead",
        "bus",
        "cache",
        "checker",
        "circuit",
        "gateway",
        "hedge",
        "limiter",
        "node",
        "policy",
        "pool",
        "queue",
        "registry",
        "router",
        "saga",
        "service",
        "stream",
        "watch",
        "worker",
    }
)


def instrument(
    registry: CollectorRegistry | None = None,
    *,
    owners: Iterable[object] | Mapping[str, object] = (),
) -> Subscription:
    """Count and measure what this process does with the library from now on.

    Args:
        registry: Where the metrics are; by default the process-wide one of prometheus_client.
        owners: Anything with ``statistics()`` and a name: worker pools, caches, circuits, limits,
            brokers, gateways. A mapping gives names to those that have none. A queue of jobs must
            be asked over the network, and has :class:`QueueGauges`.

    Returns:
        The subscription; close it to stop and to take the metrics away.

    Raises:
        ValueError: The registry has these metrics already, or two owners have one name.
        TypeError: An owner has no statistics, or no name.

    Example::

        instrument(owners=[pool, cache, breaker])
        start_http_server(9100)  # of prometheus_client
    """
    registry = REGISTRY if registry is None else registry
    figures = OwnerFigures(owners)
    with ExitStack() as stack:
        meters = _Meters(registry, stack)
        registry.register(figures)
        stack.callback(registry.unregister, figures)
        stack.callback(install_listener(meters.tell).close)
        return Subscription(stack.pop_all().close)


@final
class _Meters:
    """The metrics that events move.

    Args:
        registry: Where they are.
        stack: Takes them away.
    """

    __slots__ = ("_circuits", "_counters", "_events", "_http", "_jobs", "_names", "_seconds")

    def __init__(self, registry: CollectorRegistry, stack: ExitStack) -> None:
        self._names = Names()
        self._counters: dict[tuple[str, str], Counter] = {}

        def made(kind: type[M], name: str, text: str, *labels: str) -> M:
            metric = kind(name, text, labels, registry=registry)
            stack.callback(registry.unregister, metric)
            return metric

        self._events = made(Counter, "aiopatterns_events", "Events, by name", "event", "owner")
        self._jobs = made(
            Counter, "aiopatterns_jobs", "What became of attempts", "queue", "job", "outcome"
        )
        self._seconds = made(
            Histogram, "aiopatterns_job_seconds", "Attempts that were done", "queue", "job"
        )
        self._http = made(
            Histogram, "aiopatterns_http_request_seconds", "Answers of gateways", *_HTTP
        )
        self._circuits = made(
            Gauge, "aiopatterns_circuit_state", "0 closed, 1 half-open, 2 open", "circuit"
        )

    def tell(self, event: Event) -> None:
        """Take one event."""
        told: Any = event
        name, bounded = event.name, self._names.bounded
        self._counter(name, bounded("owner", _owner(event))).inc()
        if name.startswith(_JOB) and hasattr(told, "attempt"):
            labels = bounded("queue", told.queue), bounded("job", told.job)
            self._jobs.labels(*labels, name.removeprefix(_JOB)).inc()
            if hasattr(told, "seconds"):
                self._seconds.labels(*labels).observe(told.seconds)
        elif name == _ANSWERED:
            self._answered(told)
        else:
            for each, value in _CIRCUITS:
                if name == each:
                    self._circuits.labels(bounded("circuit", told.circuit)).set(value)

    def _counter(self, name: str, owner: str) -> Counter:
        """Return the counter of an event, kept, for looking it up costs as much as counting."""
        found = self._counters.get((name, owner))
        if found is None:
            found = self._counters[name, owner] = self._events.labels(name, owner)
        return found

    def _answered(self, told: Any) -> None:
        bounded = self._names.bounded
        self._http.labels(
            bounded("gateway", told.gateway),
            bounded("route", told.route),
            bounded("method", told.method),
            str(told.status),
        ).observe(told.seconds)


def _owner(event: Event) -> str:
    """Return the name of who tells an event; empty if it says none."""
    first = next(iter(fields(event)), None)
    return getattr(event, first.name) if first is not None and first.name in _OWNERS else ""
