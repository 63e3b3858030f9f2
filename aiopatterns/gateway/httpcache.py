"""The HTTP cache of a route: answers that are kept, and asked for once.

::

    GET, HEAD --> in stock? --- fresh --------------------------------> given out, with its age
                     |     '--- stale, and that is allowed -----------> given out, and renewed
                     |                                                    in the background
                     '- no, or has to be asked for
                              |
                              +-- somebody asks already --> wait for what comes of it
                              '-- my turn --> service --- 304 ---> the old one, fresh again
                                                 |------ kept ---> given out, to all who waited
                                                 |------ not ----> streamed to me; others ask
                                                 '------ error --> the old one, if that is allowed

    POST, PUT, PATCH, DELETE --> service --> what is in stock for that address is forgotten

What may be kept, and for how long, stands in ``cacherules.py``.

Guarantees:

* An answer is kept when all of it has come; one that breaks off never is.
* Nothing is kept that was asked for before the resource was changed through this gateway.
* One request at a time for one answer, whoever is cancelled; those for answers that turn out to be
  private are not lined up behind each other.
* Who says who he is (``Authorization``, or ``auth=`` of the route) gets nothing from here, and leaves
  nothing, unless the service says ``public`` or ``s-maxage``.
* Memory: ``max_bytes``, and ``max_body`` for each request that is being answered.

Not guaranteed: that a change which went by another way is seen before the answer is over.

Requests with ``Range``, ``If-Match`` or a body, and ``HEAD`` for what is not in stock, go to the
service and leave nothing.

Source: RFC 9111 (HTTP caching), RFC 5861 (stale content), RFC 9211 (Cache-Status).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, final

from anyio import move_on_after

from aiopatterns.cache.memory import Near
from aiopatterns.core.clock import monotonic, wall
from aiopatterns.core.context import forget_deadline
from aiopatterns.core.errors import AioPatternsError, RequestRefusedError
from aiopatterns.gateway.cacheanswer import (
    BRIDGED,
    COLLAPSED,
    CONDITIONS,
    CONFIRMED,
    HIT,
    KEPT,
    STALE,
    Ask,
    given,
    kept_headers,
    related,
)
from aiopatterns.gateway.cachebody import discard, gather
from aiopatterns.gateway.cachechanges import Changes
from aiopatterns.gateway.cachecontrol import fields_of
from aiopatterns.gateway.cacherules import bridges, freshen, terms, verdict
from aiopatterns.gateway.cachestock import Stock, Stored
from aiopatterns.gateway.cacheturn import Turn
from aiopatterns.gateway.request import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Hashable

    from anyio.abc import TaskGroup

    from aiopatterns.gateway.policy import HttpCache
    from aiopatterns.gateway.request import Request

__all__ = ["HARMLESS", "MOST_RENEWALS", "PASSED_FOR", "CacheStore", "HttpCacheStatistics", "change"]

Forward: TypeAlias = "Callable[[Request], Awaitable[Response]]"

#: Methods that change nothing.
HARMLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: Answers that are renewed in the background at once.
MOST_RENEWALS: Final = 100
#: Seconds that nobody is lined up for an answer which turned out to be private.
PASSED_FOR: Final = 10.0
# Addresses for which that is remembered.
_MOST_PASSED: Final = 4_096
# Seconds that a service which failed is left alone, where a stale answer may stand in.
_PAUSE: Final = 1.0
_REFUSED: Final = 400
_FAILED: Final = 500
_NOT_MODIFIED: Final = 304


@final
@dataclass(frozen=True, slots=True)
class HttpCacheStatistics:
    """What the cache of a route has done since it was made.

    Attributes:
        hits: Requests that were answered from stock, fresh or stale.
        stale: How many of them got a stale answer.
        misses: Requests that were answered by the service.
        collapsed: Requests that got the answer to another one.
        confirmed: Answers of which the service said that they still hold.
        size: Answers in stock.
        size_bytes: Bytes of them.
        evictions: Answers that had to make room.
        invalidations: Changes that were seen.
    """

    hits: int
    stale: int
    misses: int
    collapsed: int
    confirmed: int
    size: int
    size_bytes: int
    evictions: int
    invalidations: int


@final
class CacheStore:
    """The cache of a route.

    Args:
        policy: What is kept.
        patience: Seconds that a renewal in the background may take.

    It needs nothing to be open; without :meth:`open`, who finds a stale answer waits for a new one.
    """

    __slots__ = (
        "_changes",
        "_collapsed",
        "_confirmed",
        "_hits",
        "_invalidations",
        "_max_body",
        "_misses",
        "_passing",
        "_patience",
        "_renewing",
        "_stale",
        "_stock",
        "_tasks",
        "_turns",
    )

    def __init__(self, policy: HttpCache, *, patience: float = 60.0) -> None:
        self._max_body = policy.max_body
        self._patience = patience
        self._stock = Stock(max_size=policy.max_size, max_bytes=policy.max_bytes)
        self._changes = Changes()
        self._turns: dict[Hashable, Turn] = {}
        self._passing: Near[Hashable, None] = Near(max_size=_MOST_PASSED, eviction="lru")
        self._renewing: set[Hashable] = set()
        self._tasks: TaskGroup | None = None
        self._hits = self._stale = self._misses = self._collapsed = self._confirmed = 0
        self._invalidations = 0

    async def answer(self, request: Request, forward: Forward) -> Response:
        """Answer a request, from stock or by asking the service.

        Args:
            request: The request.
            forward: Sends a request to the service.

        Raises:
            Exception: What ``forward`` raises, where nothing in stock may stand in.
            RequestRefusedError: The client wants an answer from stock, and there is none (504).

        Cancellation: of the one who asks the service: the next of those who wait does.

        Complexity: O(headers); 2.5 us for an answer from stock.
        """
        if request.method not in HARMLESS:
            return await change(request, forward, (self,))
        ask = Ask(request, forward)
        if ask.apart or request.method == "OPTIONS":
            return await forward(request)
        while True:
            now = monotonic()
            kept = self._find(ask, now)
            response = None if kept is None else self._from_stock(ask, kept, now)
            if response is None:
                response = await self._from_service(ask, kept, now)
            if response is not None:
                return response

    def forget(self, request: Request, response: Response | None = None) -> None:
        """Forget what a request has changed, and what its answer says that it is about.

        Args:
            request: One of an unsafe method.
            response: Its answer, if there was one.
        """
        now = monotonic()
        self._invalidations += 1
        for address in related(request, response):
            self._stock.drop(address)
            self._changes.note(address, now)
            # Who comes from now on does not get what was asked for before.
            for personal in (False, True):
                self._turns.pop((address, personal), None)

    def open(self, tasks: TaskGroup) -> None:
        """Renew stale answers by tasks of this group from now on."""
        self._tasks = tasks

    def close(self) -> None:
        """Start no more tasks; those of the group end with it."""
        self._tasks = None

    def statistics(self) -> HttpCacheStatistics:
        """Return what it has done."""
        return HttpCacheStatistics(
            hits=self._hits,
            stale=self._stale,
            misses=self._misses,
            collapsed=self._collapsed,
            confirmed=self._confirmed,
            size=len(self._stock),
            size_bytes=self._stock.weight,
            evictions=self._stock.evictions,
            invalidations=self._invalidations,
        )

    # -- from stock ----------------------------------------------------------------------------

    def _find(self, ask: Ask, now: float) -> Stored | None:
        """Return what is in stock for a request, if its sender may have it."""
        kept = self._stock.find(ask.address, ask.request.header_list, now)
        return None if kept is not None and ask.personal and not kept.terms.open else kept

    def _from_stock(self, ask: Ask, kept: Stored, now: float) -> Response | None:
        """Answer by what is in stock; None if the service has to be asked."""
        age = kept.age(now)
        fate = verdict(kept.terms, age, ask.asked)
        if fate == "fresh":
            self._hits += 1
            return given(kept, ask.request, now, HIT)
        if now < kept.retry_at and bridges(kept.terms, age, ask.asked):
            return self._bridge(ask, kept, now)
        if fate == "ask" or not self._renew(ask, kept, now):
            return None
        self._hits += 1
        self._stale += 1
        return given(kept, ask.request, now, STALE)

    def _bridge(self, ask: Ask, kept: Stored, now: float) -> Response:
        """Let a stale answer stand in for an error."""
        self._hits += 1
        self._stale += 1
        return given(kept, ask.request, now, BRIDGED)

    def _renew(self, ask: Ask, kept: Stored, now: float) -> bool:
        """See that a stale answer is renewed; False if there is nobody to do it."""
        if self._tasks is None:
            return False
        place = self._place(ask, now)
        busy = place in self._turns or place in self._renewing or now < kept.retry_at
        if not busy and len(self._renewing) < MOST_RENEWALS:
            self._renewing.add(place)
            self._tasks.start_soon(self._renewed, ask, place, kept)
        return True

    async def _renewed(self, ask: Ask, place: Hashable, kept: Stored) -> None:
        """Ask the service for a new answer, for nobody in particular."""
        forget_deadline()  # of the client that has its answer already
        if ask.request.method == "HEAD":
            ask.request = ask.request.with_headers(ask.request.headers)
            ask.request.method = "GET"
        try:
            with move_on_after(self._patience), suppress(Exception):
                await discard(await self._lead(ask, place, kept))
        finally:
            self._renewing.discard(place)
            if self._find(ask, now := monotonic()) is kept:
                kept.retry_at = now + _PAUSE  # it did not come to anything

    # -- from the service ----------------------------------------------------------------------

    async def _from_service(self, ask: Ask, kept: Stored | None, now: float) -> Response | None:
        """Answer by asking the service, or by waiting for who asks; None to look again."""
        if b"only-if-cached" in ask.asked:
            raise RequestRefusedError("there is no answer in stock", status=504)
        place = self._place(ask, now)
        if ask.request.method == "HEAD" or (kept is None and self._is_single(ask, place, now)):
            return await self._fetch(ask, None, Turn())
        turn = self._turns.get(place)
        if turn is None:
            return await self._lead(ask, place, kept)
        await turn.wait()
        if turn.kept is not None and turn.kept.serves(ask.request.header_list):
            self._collapsed += 1
            return given(turn.kept, ask.request, monotonic(), COLLAPSED)
        return await self._fetch(ask, None, turn) if turn.passed else None

    def _place(self, ask: Ask, now: float) -> Hashable:
        """Return what requests have in common that may share an answer."""
        return self._stock.place(ask.address, ask.request.header_list, now), ask.personal

    def _is_single(self, ask: Ask, place: Hashable, now: float) -> bool:
        """Whether a request is not lined up with others."""
        return ask.conditional or self._passing.find(place, now) is not None

    async def _lead(self, ask: Ask, place: Hashable, kept: Stored | None) -> Response:
        """Ask the service for all who want the same."""
        turn = self._turns[place] = Turn()
        try:
            return await self._fetch(ask, kept, turn)
        except Exception as error:
            turn.error = error
            raise
        finally:
            if self._turns.get(place) is turn:
                del self._turns[place]
            if turn.passed and turn.waiting:
                until = monotonic() + PASSED_FOR
                self._passing.put(place, None, fresh_until=until, stale_until=until)
            turn.end()

    async def _fetch(self, ask: Ask, kept: Stored | None, turn: Turn) -> Response:
        """Ask the service, and keep what comes if that is allowed.

        Args:
            ask: The request.
            kept: What is in stock and may still hold, if anything.
            turn: Who waits for it.
        """
        self._misses += 1
        began = monotonic()
        try:
            response = await ask.forward(ask.about(kept))
        except AioPatternsError as error:
            if kept is None or not _is_failure(error) or not self._bridges(ask, kept):
                raise
            return self._stand_in(ask, kept, turn)
        if kept is not None and response.status >= _FAILED and self._bridges(ask, kept):
            await discard(response)
            return self._stand_in(ask, kept, turn)
        if kept is None or response.status != _NOT_MODIFIED:
            return await self._take(ask, response, began, turn)
        return await self._confirm(ask, kept, response, turn)

    async def _confirm(self, ask: Ask, kept: Stored, response: Response, turn: Turn) -> Response:
        """Bring what is in stock up to date by a 304; ask for all of it if that does not fit."""
        began = monotonic()
        await discard(response)
        fields = freshen(fields_of(kept.headers), fields_of(response.headers))
        if fields is None:
            plain = ask.about(kept)
            plain = plain.with_headers([e for e in plain.headers if e[0] not in CONDITIONS])
            return await self._take(ask, await ask.forward(plain), began, turn)
        self._confirmed += 1
        confirmed = Response(kept.status, [*fields.items()], kept.body)
        return await self._take(ask, confirmed, began, turn, CONFIRMED)

    async def _take(
        self,
        ask: Ask,
        response: Response,
        began: float,
        turn: Turn,
        status: tuple[bytes, bytes] = KEPT,
    ) -> Response:
        """Keep an answer if that is allowed, and return it; those who wait are told."""
        now = monotonic()
        found = None
        if ask.request.method == "GET" and not self._changes.since(ask.address, began):
            found = terms(
                response.status,
                fields_of(response.headers),
                asked=ask.asked,
                personal=ask.personal,
                now=wall(),
                delay=now - began,
            )
        body = None if found is None else await gather(response, self._max_body)
        if found is not None and body is not None and not self._changes.since(ask.address, began):
            stored = Stored(
                ask.address,
                response.status,
                kept_headers(response, body),
                body,
                terms=found,
                came_at=now,
                header=ask.request.header_list,
            )
            if self._stock.put(stored, ask.request.header_list):
                turn.kept = stored
                return given(stored, ask.request, monotonic(), status)
        turn.passed = True
        return response

    # -- errors --------------------------------------------------------------------------------

    def _bridges(self, ask: Ask, kept: Stored) -> bool:
        return bridges(kept.terms, kept.age(monotonic()), ask.asked)

    def _stand_in(self, ask: Ask, kept: Stored, turn: Turn) -> Response:
        """Give out a stale answer for an error, also to those who wait."""
        now = monotonic()
        kept.retry_at = now + _PAUSE
        turn.kept = kept
        return self._bridge(ask, kept, now)


async def change(request: Request, forward: Forward, stores: Collection[CacheStore]) -> Response:
    """Send a request that may change something, and forget what it may have changed.

    Args:
        request: One of an unsafe method.
        forward: Sends it to the service.
        stores: Where an answer may be kept; another route may lead to the same resource.

    Raises:
        Exception: What ``forward`` raises.

    Cancellation: nobody knows then what came of it, so it is forgotten.
    """
    try:
        response = await forward(request)
    except BaseException:
        _forget(stores, request, None)
        raise
    if not _REFUSED <= response.status < _FAILED:
        _forget(stores, request, response)
    return response


def _forget(stores: Collection[CacheStore], request: Request, response: Response | None) -> None:
    for store in stores:
        store.forget(request, response)


def _is_failure(error: AioPatternsError) -> bool:
    """Whether an error is the service's, and not the client's."""
    return not isinstance(error, RequestRefusedError) or error.status >= _FAILED
