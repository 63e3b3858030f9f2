"""How much one client may ask for, and what it is told about that.

A client is who it was verified to be, else its address; of IPv6 the first 64 bits, for whoever has
one address there has all the others too::

    rate_limit=Rate(100)               local: each process and route counts by itself, no waiting
    rate_limit=TokenBucket(...)        local; one object for several routes is one count
    rate_limit=SharedRateLimit(...)    one count for all processes, on a backend

    200  RateLimit-Limit: 100   RateLimit-Remaining: 41   RateLimit-Reset: 1
    429  the same, and Retry-After: 1

Guarantees:

* Memory is bounded: a local limiter knows at most ``MAX_KEYS`` clients and forgets the one that was
  idle for longest, and a shared one keeps a key only while it owes something.
* A request that is refused takes nothing, so a client that keeps asking is not locked out.
* What happens when the backend of a shared limit is away is what its ``on_outage`` says.

Source: draft-ietf-httpapi-ratelimit-headers-07; RFC 6585 section 4 (429).
"""

from __future__ import annotations

import math
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Final, TypeAlias, final

from aiopatterns.core.errors import RateLimitedError, RequestRefusedError
from aiopatterns.core.rate import Grant, Rate
from aiopatterns.core.validate import instance
from aiopatterns.resilience.ratelimit import GCRA, SlidingWindow, TokenBucket
from aiopatterns.resilience.sharedlimit import SharedRateLimit

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend
    from aiopatterns.gateway.request import Headers, Request

__all__ = ["LIMITS", "ClientLimit", "RateLimit", "client_key"]

#: The types of what a route's ``rate_limit`` may be.
LIMITS: Final = (Rate, TokenBucket, GCRA, SlidingWindow, SharedRateLimit)
RateLimit: TypeAlias = Rate | TokenBucket | GCRA | SlidingWindow | SharedRateLimit
"""What a route's ``rate_limit`` may be."""

_NETWORK: Final = 64
_ADDRESS: Final = 128


@final
class ClientLimit:
    """The limit of each client of a route.

    Args:
        limit: A rate, for a token bucket of this route's own; or a limiter, which other routes
            may have as well.

    Raises:
        TypeError: ``limit`` is something else.
    """

    __slots__ = ("_amount", "_local", "_shared")

    def __init__(self, limit: RateLimit) -> None:
        instance("rate_limit", limit, LIMITS, "a Rate or a limiter")
        if isinstance(limit, Rate):
            limit = TokenBucket(limit)
        self._shared: SharedRateLimit | None = None
        self._local: TokenBucket | GCRA | SlidingWindow | None = None
        if isinstance(limit, SharedRateLimit):
            self._shared = limit
        else:
            self._local = limit
        self._amount = b"%d" % max(1, math.floor(limit.rate.amount))

    @property
    def backend(self) -> Backend | None:
        """Where a shared limit counts; it has to be open."""
        return None if self._shared is None else self._shared.backend

    def admit(self, request: Request) -> Grant | None:
        """Let a request through if its client has something left; None if that takes a wait.

        Raises:
            RequestRefusedError: The client has nothing left (429).

        Complexity: O(1), about 1 us.
        """
        if self._local is None:
            return None
        grant = self._local.try_acquire(key=client_key(request))
        if not grant[0]:
            raise self._refused(grant)
        return grant

    async def ask(self, request: Request) -> Grant:
        """Let a request through if its client has something left over all processes.

        Raises:
            RequestRefusedError: The client has nothing left (429), or it cannot be told and the
                limit says that nobody gets through then (503).

        Cancellation: what was taken is not given back.
        """
        assert self._shared is not None, "a local limit answers by admit"
        try:
            return await self._shared.acquire(key=client_key(request), max_wait=0)
        except RateLimitedError as error:
            wait = math.inf if error.retry_after is None else error.retry_after
            if self._shared.in_outage and self._shared.on_outage == "deny":
                raise _away(wait) from None
            raise self._refused(Grant(False, wait, 0, wait)) from None

    def headers(self, grant: Grant) -> Headers:
        """Return what a client is told about its limit."""
        return [
            (b"ratelimit-limit", self._amount),
            (b"ratelimit-remaining", b"%d" % grant[2]),
            (b"ratelimit-reset", b"%d" % math.ceil(grant[3])),
        ]

    def _refused(self, grant: Grant) -> RequestRefusedError:
        wait = min(grant.retry_after, 86_400.0)
        headers = self.headers(
            grant._replace(reset_after=max(wait, min(grant.reset_after, 86_400.0)))
        )
        headers.append((b"retry-after", _seconds(wait)))
        return RequestRefusedError("too many requests", status=429, headers=headers)


def client_key(request: Request) -> str:
    """Return whose limit a request counts against.

    A name that was verified never meets an address, nor one client another.
    """
    if request.identity is not None:
        return f"id:{request.identity.subject}"
    client = request.client
    return f"net:{_network(client)}" if ":" in client else f"ip:{client}"


def _network(client: str) -> str:
    """Return the network of an IPv6 address, or what it is called if it is none."""
    try:
        address = IPv6Address(client)
    except ValueError:
        return client
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{int(address) >> (_ADDRESS - _NETWORK):x}"


def _seconds(wait: float) -> bytes:
    return b"%d" % max(1, math.ceil(wait))


def _away(wait: float) -> RequestRefusedError:
    return RequestRefusedError(
        "limits cannot be checked at the moment",
        status=503,
        headers=[(b"retry-after", _seconds(min(wait, 5.0)))],
    )
