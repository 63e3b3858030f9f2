"""Subjects: what a publisher tells of an owner, by its kind.

Anything with ``statistics()`` can be published; some tell more: a limiter what is left of its rate,
a peer its members, a registry its services, a graph, a pipeline and a saga their picture. A limiter
has no name, so it needs one from who publishes it.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast, final

import msgspec

from aiopatterns.backends.publishing import INTERVAL
from aiopatterns.cluster.peer import PeerNode
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import AioPatternsError
from aiopatterns.core.validate import is_async, text
from aiopatterns.dashboard.fleet import FLOWS, PARTITIONS, SERVICES
from aiopatterns.dashboard.flows import dag_flows, pipeline_flows, saga_flows
from aiopatterns.data.saga import Saga
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.run import PipelineRun
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.resilience.ratelimit import GCRA, SlidingWindow, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.dashboard.overview import FlowView

__all__ = ["Subject", "kind_of"]

_KINDS: Final = MappingProxyType(
    {
        "CircuitBreaker": "breaker",
        "TokenBucket": "limiter",
        "SlidingWindow": "limiter",
        "GCRA": "limiter",
        "AdaptiveLimit": "limiter",
        "ShardedCache": "cache",
        "JobQueue": "queue",
        "PeerNode": "peer",
        "WorkerPool": "pool",
        "PipelineRun": "pipeline",
        "StreamConsumer": "consumer",
        "ServiceRegistry": "registry",
        "LoadBalancer": "balancer",
    }
)
_LIMITERS: Final = (TokenBucket, SlidingWindow, GCRA)
_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def kind_of(owner: object) -> str:
    """Return the kind under which an owner is shown: ``breaker``, ``cache``, ``my_owner``."""
    name = type(owner).__name__
    return _KINDS.get(name) or _CAPITAL.sub("_", name).lower()


@final
class Subject:
    """One owner, and what is told of it.

    Args:
        owner: The owner.
        name: What it is called; None takes its own name.

    Raises:
        TypeError: It has no statistics, or no name.
    """

    __slots__ = ("_flows", "_owner", "kind", "name")

    def __init__(self, owner: Any, name: str | None = None) -> None:
        if not isinstance(owner, (*_LIMITERS, Dag, JobQueue)) and not _has_statistics(owner):
            msg = f"owners must have statistics(), as breakers and caches have, not {owner!r}"
            raise TypeError(msg)
        found = getattr(owner, "name", None) if name is None else name
        if not isinstance(found, str):
            msg = f"owners must have a name, or get one by named=, not {owner!r}"
            raise TypeError(msg)
        self._owner = owner
        self._flows: list[FlowView] = []
        self.kind: str = kind_of(owner)
        self.name: str = text("name", found)

    @property
    def watched(self) -> bool:
        """Whether :meth:`watch` has to run, for what must be asked for."""
        return isinstance(self._owner, Saga)

    async def watch(self) -> None:
        """Ask the store of a saga again and again, for ever."""
        while True:
            try:
                self._flows = await saga_flows(cast("Saga[Any]", self._owner))
            except Exception:  # whatever the store of the user raises; the next look may succeed
                self._flows = []
            await sleep(INTERVAL)

    def figures(self) -> dict[str, Any]:
        """Return the figures of this moment, as plain data; none if the owner has none now."""
        try:
            return _builtins(self._told())
        except (AioPatternsError, TypeError):
            return {}

    def _told(self) -> dict[str, Any]:
        owner = self._owner
        match owner:
            case Dag():
                return {"runs": len(owner.runs), FLOWS: dag_flows(owner)}
            case JobQueue():
                return {PARTITIONS: len(owner.stores)}
            case Saga():
                return {**_plain(owner), FLOWS: self._flows}
            case PipelineRun():
                return {**_plain(owner), FLOWS: pipeline_flows(cast("PipelineRun[object]", owner))}
            case PeerNode():
                states = {name: each.state for name, each in owner.members.items()}
                return {**_plain(owner), "members": states}
            case ServiceRegistry():
                return {**_plain(owner), SERVICES: sorted(owner.services)}
            case TokenBucket() | SlidingWindow() | GCRA():
                return _limits(owner)
            case _:
                return _plain(owner)


def _has_statistics(owner: object) -> bool:
    asked = getattr(owner, "statistics", None)
    return callable(asked) and not is_async(asked)


def _plain(owner: Any) -> dict[str, Any]:
    """Return a record as a table."""
    ask: Callable[[], object] = owner.statistics
    return _builtins(ask())


def _builtins(record: object) -> dict[str, Any]:
    """Return a record, and all in it, as plain data."""
    found: object = msgspec.to_builtins(record, str_keys=True)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {"value": found}


def _limits(limiter: TokenBucket | SlidingWindow | GCRA) -> dict[str, Any]:
    """Return what is left of a rate that no key divides."""
    rate, grant = limiter.rate, limiter.peek()
    left = grant.remaining
    return {
        "limit": rate.amount,
        "per": rate.per,
        "available": left,
        "held": max(0.0, rate.amount - left),
        "retry_after": grant.retry_after,
    }
