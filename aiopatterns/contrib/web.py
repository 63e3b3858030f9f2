"""What every web framework is told alike: request ids, refusals, and pages of health.

The adapters beside this file translate it into their framework's words; what is said stands here
once, so that an ASGI service and an aiohttp service behind one gateway answer the same.

* A *request id* joins all that is done for one request. One that a caller sends in
  ``X-Request-ID`` is taken over if it is harmless, else a fresh one is made.
* A *refusal* by a rate limit is a 429 that says when to come again.
* A *page of health* is the last report of a checker: 200 for yes, 503 for no. It asks nothing.

Source: RFC 6585 (429), RFC 9457 (problem details); the ``RateLimit`` fields are those of
draft-ietf-httpapi-ratelimit-headers-07.
"""

from __future__ import annotations

import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from aiopatterns.cluster.health import HealthChecker
from aiopatterns.core.codec import JSON
from aiopatterns.core.context import new_id
from aiopatterns.core.errors import RateLimitedError
from aiopatterns.core.rate import Grant
from aiopatterns.core.validate import function, instance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiopatterns.cluster.healthcheck import HealthKind

__all__ = [
    "PAGES",
    "REQUEST_ID",
    "ClientLimiter",
    "ask",
    "checked_checker",
    "checked_limiter",
    "checked_owners",
    "health_page",
    "limit_headers",
    "refusal",
    "request_id",
]

#: The header of the request id, in and out.
REQUEST_ID: Final = "X-Request-ID"
#: What is asked at which path.
PAGES: Final[Mapping[str, HealthKind]] = MappingProxyType(
    {"/live": "liveness", "/ready": "readiness", "/startup": "startup"}
)

# Longer ones, and those with spaces or control characters, do not go into logs and headers.
_HARMLESS: Final = re.compile(r"[!-~]{1,128}")
_PROBLEM: Final = b'{"type":"about:blank","title":"Too Many Requests","status":429}'

Page: TypeAlias = "tuple[int, dict[str, str], bytes]"


class ClientLimiter(Protocol):
    """A limiter with a line for each key: ``TokenBucket`` and its kin, or ``SharedRateLimit``."""

    async def acquire(
        self, cost: float = 1.0, *, key: str | None = None, max_wait: float | None = None
    ) -> Grant:
        """Take ``cost`` of ``key``; with a ``max_wait`` of 0, now or not at all."""
        ...


def checked_owners(owners: Iterable[object]) -> None:
    """Refuse what cannot be entered.

    Raises:
        TypeError: One of ``owners`` is no async context manager.
    """
    for owner in owners:
        if not all(hasattr(type(owner), verb) for verb in ("__aenter__", "__aexit__")):
            msg = f"owners must be async context managers, as JobQueue is, not {owner!r}"
            raise TypeError(msg)


def request_id(sent: str | None) -> str:
    """Return the id of a request.

    Args:
        sent: What its caller sent, if anything.
    """
    return sent if sent is not None and _HARMLESS.fullmatch(sent) else new_id()


def checked_limiter(limiter: ClientLimiter) -> ClientLimiter:
    """Return ``limiter`` if it is one.

    Raises:
        TypeError: It is none.
    """
    function("limiter.acquire", getattr(limiter, "acquire", None))
    return limiter


async def ask(limiter: ClientLimiter, key: str) -> Grant:
    """Take one of ``key`` now or not at all.

    Cancellation: as of the limiter.
    """
    try:
        return await limiter.acquire(key=key, max_wait=0)
    except RateLimitedError as error:
        wait = math.inf if error.retry_after is None else error.retry_after
        return Grant(allowed=False, retry_after=wait, remaining=0, reset_after=wait)


def limit_headers(grant: Grant) -> dict[str, str]:
    """Return the headers that tell a client how it stands with its limit."""
    headers = {"RateLimit-Remaining": str(grant.remaining)}
    if grant.reset_after < math.inf:
        headers["RateLimit-Reset"] = str(math.ceil(grant.reset_after))
    if not grant.allowed and grant.retry_after < math.inf:
        headers["Retry-After"] = str(max(1, math.ceil(grant.retry_after)))
    return headers


def refusal(grant: Grant) -> Page:
    """Return status, headers and body of the answer to a client that has used up its limit."""
    return 429, {"Content-Type": "application/problem+json", **limit_headers(grant)}, _PROBLEM


def checked_checker(checker: HealthChecker) -> HealthChecker:
    """Return ``checker`` if it is one.

    Raises:
        TypeError: It is none.
    """
    return instance("checker", checker, HealthChecker, "a HealthChecker")


def health_page(checker: HealthChecker, kind: HealthKind) -> Page:
    """Return status, headers and body of the page of one set of checks."""
    report = checker.report(kind)
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return 200 if report.ok else 503, headers, JSON.encode(report.as_dict())
