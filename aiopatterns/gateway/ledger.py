"""Figures of a gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiopatterns.gateway.httpcache import HttpCacheStatistics
    from aiopatterns.gateway.upstream import Upstream
    from aiopatterns.resilience.circuitstate import CircuitState

__all__ = ["EndpointFigures", "GatewayStatistics", "Ledger"]


@final
@dataclass(frozen=True, slots=True)
class EndpointFigures:
    """What a gateway knows of an endpoint, under one set of breaker rules.

    Attributes:
        target: The service, or the base URL.
        endpoint: Host and port.
        circuit: State of its circuit; None without a breaker.
        in_flight: Requests that hold a place of its bulkhead; None without one.
    """

    target: str
    endpoint: str
    circuit: CircuitState | None
    in_flight: int | None


@final
@dataclass(frozen=True, slots=True)
class GatewayStatistics:
    """What a gateway did since it was made. ``requests`` is ``in_flight`` and all ``answers``.

    Attributes:
        requests: Requests that have come.
        in_flight: Those that have not ended.
        answers: Those that have, by status; 499 if the client had gone before there was an answer.
        cut_short: Answers that were begun and did not come to their end, of those.
        retries: Attempts that were not the first of their request.
        sockets: WebSockets that were opened.
        endpoints: What is known of the endpoints.
        caches: What the caches of routes did, by the prefix of the route.
    """

    requests: int
    in_flight: int
    answers: Mapping[int, int]
    cut_short: int
    retries: int
    sockets: int
    endpoints: tuple[EndpointFigures, ...]
    caches: Mapping[str, HttpCacheStatistics]


@final
class Ledger:
    """The counters behind :class:`GatewayStatistics`."""

    __slots__ = ("answers", "cut_short", "in_flight", "requests", "retries", "sockets")

    def __init__(self) -> None:
        self.requests: int = 0
        self.in_flight: int = 0
        self.answers: dict[int, int] = {}
        self.cut_short: int = 0
        self.retries: int = 0
        self.sockets: int = 0

    def begin(self) -> None:
        """A request has come."""
        self.requests += 1
        self.in_flight += 1

    def end(self, status: int, *, complete: bool) -> None:
        """It has ended."""
        self.in_flight -= 1
        self.answers[status] = self.answers.get(status, 0) + 1
        self.cut_short += not complete

    def statistics(
        self, upstreams: Iterable[Upstream], caches: Mapping[str, HttpCacheStatistics]
    ) -> GatewayStatistics:
        """Return the figures, and what is known of endpoints and caches."""
        return GatewayStatistics(
            requests=self.requests,
            in_flight=self.in_flight,
            answers=dict(self.answers),
            cut_short=self.cut_short,
            retries=self.retries,
            sockets=self.sockets,
            endpoints=tuple(
                EndpointFigures(
                    upstream.target,
                    site.name,
                    None if site.breaker is None else site.breaker.state,
                    None if site.bulkhead is None else site.bulkhead.statistics().in_flight,
                )
                for upstream in upstreams
                for site in upstream.sites
            ),
            caches=caches,
        )

    def retried(self) -> None:
        """Another attempt is made."""
        self.retries += 1
