"""What may happen to the requests of a route: plain records, checked when they are made.

::

    RoutePolicy
      timeouts     how long to wait, for what
      retry        how often to try, and the budget of all extra attempts
      breaker      when an endpoint is not asked; one circuit for each
      bulkhead     requests in flight to one endpoint
      rate_limit   how much one client may ask for
      cache        answers that are kept

The gateway's ``defaults`` hold for routes without a policy; a route's policy takes their place as a
whole, so change a few fields by ``dataclasses.replace(defaults, cache=HttpCache())``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.errors import RejectedError, UpstreamError
from aiopatterns.core.validate import count, instance, optional_count, optional_positive, positive
from aiopatterns.gateway.ratelimit import LIMITS
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.breaktime import BREAK
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.halfopen import HalfOpen
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.trip import Trip

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from aiopatterns.gateway.ratelimit import RateLimit
    from aiopatterns.resilience.breaktime import OpenFor

__all__ = ["BreakerRules", "HttpCache", "Identity", "Limits", "RoutePolicy", "Timeouts"]

_KIB: Final = 1024
_MIB: Final = 1024 * 1024
# Extra attempts for each request, as in Envoy's and Finagle's budgets.
_EXTRA: Final = 0.2
_ATTEMPTS: Final = 3
_FIRST_WAIT: Final = 0.025
_TRIP: Final = Trip()
_HALF_OPEN: Final = HalfOpen()


@final
@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for an upstream; over, the client gets 504.

    Args:
        connect: Seconds until there is a connection, TLS included.
        first_byte: Seconds from the request's end until the answer's head.
        idle: Seconds without a byte of a body, in either direction.
        total: Seconds for the whole request with all its attempts, until the last byte has gone
            to the client; None for no such bound, as for streams of events.
    """

    connect: float = 2.0
    first_byte: float = 15.0
    idle: float = 30.0
    total: float | None = 60.0

    def __post_init__(self) -> None:
        positive("connect", self.connect)
        positive("first_byte", self.first_byte)
        positive("idle", self.idle)
        optional_positive("total", self.total)


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may send, and which peers are believed about it.

    Args:
        max_body: Bytes of a request's body; more is answered with 413.
        max_headers: Bytes of all headers of a request; more is answered with 431.
        max_target: Bytes of path and query; more is answered with 414.
        trusted_proxies: Addresses and networks, such as ``"10.0.0.0/8"``, whose ``X-Forwarded-*``
            headers are believed.
    """

    max_body: int = 10 * _MIB
    max_headers: int = 32 * _KIB
    max_target: int = 8 * _KIB
    trusted_proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count("max_body", self.max_body, minimum=0)
        count("max_headers", self.max_headers)
        count("max_target", self.max_target)
        instance("trusted_proxies", self.trusted_proxies, tuple, "a tuple of networks")
        for each in self.trusted_proxies:
            try:
                ip_network(instance("trusted_proxies", each, str, "a tuple of networks"))
            except ValueError as error:
                msg = f"trusted_proxies must be addresses or networks, not {each!r}: {error}"
                raise ValueError(msg) from None


@final
@dataclass(frozen=True, slots=True)
class HttpCache:
    """Answers to GET and HEAD that are kept in memory, for each route its own.

    Args:
        max_body: Bytes of one body; a larger answer is not kept.
        max_size: Answers that are kept at most.
        max_bytes: Bytes of all of them.
    """

    max_body: int = _MIB
    max_size: int = 10_000
    max_bytes: int = 64 * _MIB

    def __post_init__(self) -> None:
        count("max_body", self.max_body)
        count("max_size", self.max_size)
        count("max_bytes", self.max_bytes)
        if self.max_bytes < self.max_body:
            msg = f"max_bytes must be at least max_body ({self.max_body}), not {self.max_bytes!r}"
            raise ValueError(msg)


@final
@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When an endpoint is not asked any more: each endpoint gets a circuit breaker by these.

    Args:
        trip: When it opens; by default when half of at least 20 requests of the last 10 s failed.
        open_for: For how long; see ``CircuitBreaker``.
        half_open: How it is found out whether the endpoint is well again.
    """

    trip: Trip = _TRIP
    open_for: OpenFor = BREAK
    half_open: HalfOpen = _HALF_OPEN

    def __post_init__(self) -> None:
        self.make("endpoint")  # which checks them

    def make(self, name: str) -> CircuitBreaker:
        """Return a breaker by these rules."""
        return CircuitBreaker(
            name, trip=self.trip, open_for=self.open_for, half_open=self.half_open
        )


def _retry() -> Retry:
    return Retry(
        (UpstreamError, RejectedError),
        attempts=_ATTEMPTS,
        backoff=Exponential(_FIRST_WAIT),
        budget=Budget.tokens(_EXTRA),
    )


@final
@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What may happen to the requests of a route.

    Args:
        timeouts: How long to wait.
        retry: How often to try, and with what budget; None tries once. Whatever it says, a request
            is sent again only if that is safe: see ``docs/patterns/gateway.md``. By default three
            attempts, and extra ones for a fifth of the requests at most.
        breaker: When an endpoint is not asked; None always asks. Answers of 500 and above, and
            none at all, are failures.
        bulkhead: Requests in flight to one endpoint at most, streams included; None for any number.
        rate_limit: How much one client may ask for: a ``Rate``, a limiter, or one that is shared
            between processes; None for any rate.
        cache: Answers that are kept; None keeps none.
    """

    timeouts: Timeouts = Timeouts()
    retry: Retry | None = field(default_factory=_retry)
    breaker: BreakerRules | None = BreakerRules()
    bulkhead: int | None = None
    rate_limit: RateLimit | None = None
    cache: HttpCache | None = None

    def __post_init__(self) -> None:
        instance("timeouts", self.timeouts, Timeouts, "Timeouts, as in Timeouts(total=10)")
        if self.retry is not None:
            instance("retry", self.retry, Retry, "None or a Retry")
        if self.breaker is not None:
            instance("breaker", self.breaker, BreakerRules, "None or BreakerRules")
        optional_count("bulkhead", self.bulkhead)
        if self.rate_limit is not None:
            instance("rate_limit", self.rate_limit, LIMITS, "None, a Rate or a limiter")
        if self.cache is not None:
            instance("cache", self.cache, HttpCache, "None or an HttpCache")


@final
@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends a request, as far as it was verified.

    Args:
        subject: Name of the client; goes upstream as ``X-User-Id``.
        claims: What else is known, such as the claims of a token.
        via: How it was verified.
    """

    subject: str
    claims: Mapping[str, object]
    via: Literal["jwt", "key"]
