"""The rules of a shared HTTP cache, as pure functions: what is kept, for how long, and for whom.

::

    an answer comes    terms()      None: not kept         a Terms: kept, and these hold for it
    somebody asks      verdict()    "fresh": give it out   "stale": give it out and renew it
                                    "ask": ask the service first, by conditions()
    the service says   304: freshen() what is there        200: terms() once more
    an error           bridges()    whether what is there may stand in for the answer

Guarantees, which are those of RFC 9111 for a shared cache, and where it leaves a choice the careful
one:

* Nothing is kept without an explicit word of the service about it: no heuristics.
* What is ``no-store`` or ``private``, sets a cookie, or varies by ``*`` is never kept; nor is the
  answer to somebody who was identified, unless it says ``public`` or ``s-maxage``.
* What the service forbids to give out stale (``must-revalidate``, ``proxy-revalidate``,
  ``no-cache``) never is.
* A qualified ``private="..."`` or ``no-cache="..."`` counts as an unqualified one.

Not kept though they might be: partial answers (206), and answers to anything but GET.

Source: RFC 9111 (HTTP caching), RFC 9110 (HTTP semantics), RFC 5861 (stale content).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from aiopatterns.gateway.cachecontrol import (
    FOREVER,
    directives,
    entity_tag,
    http_date,
    matches,
    seconds,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.gateway.cachecontrol import Directives, Fields

__all__ = [
    "MOST_VARY",
    "Terms",
    "Verdict",
    "bridges",
    "conditions",
    "freshen",
    "terms",
    "unchanged",
    "variant",
    "vary_names",
    "verdict",
]

Verdict: TypeAlias = Literal["fresh", "stale", "ask"]

#: Names in a Vary at most; an answer that varies by more is not kept.
MOST_VARY: Final = 8
# Final statuses whose meaning is known here and does not depend on the request's body or ranges.
_KEPT: Final = frozenset({200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 451, 501})
_STRICT: Final = frozenset({b"must-revalidate", b"proxy-revalidate", b"no-cache"})
# What a 304 does not change: it speaks about the answer, and these describe its body.
_OF_BODY: Final = frozenset(
    {b"content-encoding", b"content-length", b"content-range", b"content-type", b"set-cookie"}
)
# What the gateway sets anew for each request; only scheme and host are a part of the address.
_OURS: Final = frozenset(
    {
        b"forwarded",
        b"traceparent",
        b"tracestate",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-port",
        b"x-forwarded-server",
        b"x-real-ip",
        b"x-request-id",
        b"x-user-id",
    }
)
_IN_ADDRESS: Final = frozenset(
    {b"host", b"x-forwarded-host", b"x-forwarded-prefix", b"x-forwarded-proto"}
)
# Lists whose members are not case-sensitive (RFC 9110, section 12.5).
_CASELESS: Final = frozenset({b"accept", b"accept-charset", b"accept-encoding", b"accept-language"})


@final
@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms an answer is kept. Times are seconds.

    Attributes:
        lifetime: Until that age it is fresh.
        age: Its age when it came.
        while_stale: How long after its lifetime it may be given out while it is renewed.
        if_error: How long after its lifetime it may stand in for an error.
        strict: Whether it is never given out stale.
        tolerant: Whether a client may say that it takes it stale.
        ask: Whether the service has to be asked each time.
        open: Whether those who say who they are get it like everybody else.
        names: The names of what it varies with, sorted.
        etag: Its entity tag.
        modified: Its Last-Modified, as sent.
    """

    lifetime: float
    age: float
    while_stale: float
    if_error: float
    strict: bool
    tolerant: bool
    ask: bool
    open: bool
    names: tuple[bytes, ...]
    etag: bytes | None
    modified: bytes | None

    @property
    def life(self) -> float:
        """Seconds from when it came until it is of no use any more."""
        if self.etag is not None or self.modified is not None:
            return float(FOREVER)
        return self.lifetime + max(self.while_stale, self.if_error) - self.age


def terms(
    status: int, fields: Fields, *, asked: Directives, personal: bool, now: float, delay: float
) -> Terms | None:
    """Say whether the answer to a GET may be kept, and on what terms.

    Args:
        status: Its status.
        fields: Its header fields.
        asked: The directives of the request.
        personal: Whether the request says who sent it.
        now: When it came, in seconds since 1970.
        delay: Seconds between the request and its answer.

    Returns:
        The terms, or None: then it is not kept.
    """
    said = directives(fields.get(b"cache-control"))
    names = vary_names(fields)
    lifetime = _lifetime(said, fields, now)
    is_open = b"public" in said or b"s-maxage" in said
    if lifetime is None or names is None or (personal and not is_open):
        return None
    if status not in _KEPT or b"no-store" in asked or b"set-cookie" in fields:
        return None
    strict = not _STRICT.isdisjoint(said)
    found = Terms(
        lifetime=lifetime,
        age=_age(fields, now, delay),
        while_stale=0 if strict else said.get(b"stale-while-revalidate", 0),
        if_error=0 if strict else said.get(b"stale-if-error", 0),
        strict=strict,
        # Of s-maxage a client may not ask for more; the service may, by a word of its own.
        tolerant=not strict and b"s-maxage" not in said,
        ask=b"no-cache" in said,
        open=is_open,
        names=names,
        etag=None if entity_tag(fields.get(b"etag")) is None else fields[b"etag"],
        modified=fields.get(b"last-modified"),
    )
    return found if found.life > 0 else None


def _lifetime(said: Directives, fields: Fields, now: float) -> float | None:
    """Return how long an answer is fresh; None if it may not be kept, or does not say so."""
    if b"no-store" in said or b"private" in said:
        return None
    if b"no-cache" in said:
        return 0.0
    for name in (b"s-maxage", b"max-age"):
        if name in said:
            return float(said[name])
    if b"expires" in fields:
        expires = http_date(fields[b"expires"])
        date = http_date(fields.get(b"date"))
        return 0.0 if expires is None else max(0.0, expires - (now if date is None else date))
    return 0.0 if b"public" in said else None


def _age(fields: Fields, now: float, delay: float) -> float:
    """Return how old an answer is when it comes (RFC 9111, section 4.2.3)."""
    date = http_date(fields.get(b"date"))
    apparent = 0.0 if date is None else max(0.0, now - date)
    return max(apparent, seconds(fields.get(b"age", b"0").strip()) + delay)


def verdict(kept: Terms, age: float, asked: Directives) -> Verdict:
    """Say what to do with what is kept when somebody asks for it.

    Args:
        kept: Its terms.
        age: Its age now.
        asked: The directives of the request.

    Returns:
        ``"fresh"``: give it out; ``"stale"``: give it out, and renew it meanwhile; ``"ask"``: ask
        the service whether it still holds.
    """
    over = age - kept.lifetime
    if kept.ask or b"no-cache" in asked or age > asked.get(b"max-age", FOREVER):
        return "ask"
    over += asked.get(b"min-fresh", 0)
    if over < 0:
        return "fresh"
    tolerated = kept.while_stale
    if kept.tolerant:
        tolerated = max(tolerated, asked.get(b"max-stale", 0))
    return "stale" if over < tolerated else "ask"


def bridges(kept: Terms, age: float, asked: Directives) -> bool:
    """Whether what is kept may stand in for an answer that did not come, or is an error."""
    if kept.strict or b"no-cache" in asked:
        return False
    bridged = kept.if_error
    if kept.tolerant:
        bridged = max(bridged, asked.get(b"stale-if-error", 0))
    return age - kept.lifetime < bridged


def conditions(kept: Terms) -> list[tuple[bytes, bytes]]:
    """Return the header fields that ask whether what is kept still holds; none if nothing can."""
    found: list[tuple[bytes, bytes]] = []
    if kept.etag is not None:
        found.append((b"if-none-match", kept.etag))
    if kept.modified is not None:
        found.append((b"if-modified-since", kept.modified))
    return found


def freshen(kept: Fields, news: Fields) -> Fields | None:
    """Return the header fields of what is kept, brought up to date by those of a 304.

    Returns:
        The fields, or None if the 304 is about something else than what is kept.
    """
    if b"etag" in news and entity_tag(news[b"etag"]) != entity_tag(kept.get(b"etag")):
        return None
    later = {name: value for name, value in news.items() if name not in _OF_BODY}
    # An age that is not told again is that of a new answer.
    return {name: value for name, value in kept.items() if name != b"age"} | later


def unchanged(kept: Terms, header: Callable[[bytes], bytes | None]) -> bool:
    """Whether a client that asks on conditions has what is kept already: 304.

    Args:
        kept: The terms of what is kept.
        header: Gives the header fields of the request.
    """
    tags = header(b"if-none-match")
    if tags is not None:
        return matches(tags, kept.etag)
    since, modified = http_date(header(b"if-modified-since")), http_date(kept.modified)
    return since is not None and modified is not None and modified <= since


def vary_names(fields: Fields) -> tuple[bytes, ...] | None:
    """Return the names in a Vary, sorted; None if nobody else can get the answer.

    What the gateway itself tells a service about a client is not what the client sent, so an
    answer that varies with that is nobody else's.
    """
    if b"vary" not in fields:
        return ()
    given = {each.strip().lower() for each in fields[b"vary"].split(b",")} - {b""} - _IN_ADDRESS
    if b"*" in given or len(given) > MOST_VARY or not _OURS.isdisjoint(given):
        return None
    return tuple(sorted(given))


def variant(names: tuple[bytes, ...], header: Callable[[bytes], bytes | None]) -> bytes:
    """Return what stands for the values of the fields that an answer varies by.

    Args:
        names: The names in its Vary.
        header: Gives the header fields of a request, repeated ones joined.

    Returns:
        16 bytes, equal for requests that may get the same answer. A field that is left out
        differs from one that is empty; spaces around the commas of a list do not count.
    """
    digest = blake2b(digest_size=16)
    for name in names:
        value = header(name)
        if value is not None:
            value = b",".join([each.strip() for each in value.split(b",")])
            if name in _CASELESS:
                value = value.lower()
        digest.update(b"-;" if value is None else b"%d:%b;" % (len(value), value))
    return digest.digest()
