"""What a cache has in stock: answers by address, and by what they vary with.

::

    address --> answer                               one for everybody
    address --> Index(accept-language) --+--> answer for "de"
                                         '--> answer for "en"

What an answer varies with is known only when it has come. So an address leads to its answer, or to
the names of the fields that tell its answers apart; their values are hashed, so that what clients
send takes no room. The names only become more: an answer that names none, between others that do,
is told apart by the same fields.

Guarantees: never more than ``max_size`` answers, nor more than ``max_bytes`` of them; who forgets an
address forgets all its answers, at once.

Source: RFC 9111, section 4.1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias, final

from aiopatterns.cache.memory import Near
from aiopatterns.gateway.cacherules import MOST_VARY, variant

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from aiopatterns.gateway.cacherules import Terms
    from aiopatterns.gateway.request import Headers

__all__ = ["Address", "Header", "Stock", "Stored"]

Address: TypeAlias = "tuple[str, bytes, bytes, bytes]"
"""Scheme, host as asked for, path and query of a request."""

Header: TypeAlias = "Callable[[bytes], bytes | None]"
"""Gives the header fields of a request, repeated ones joined."""

# Bytes that an answer takes besides its body and headers.
_OVERHEAD: Final = 512


@final
class Stored:
    """An answer that is kept.

    Args:
        address: Of the request.
        status: Its status.
        headers: Its header fields, without its age.
        body: Its body.
        terms: On what terms it is kept.
        came_at: When it came (monotonic seconds).
        header: Gives the header fields of the request, repeated ones joined.

    Attributes:
        weight: Bytes that it takes.
        retry_at: When it may be asked for again, after an error (monotonic seconds).
    """

    __slots__ = (
        "_variant",
        "address",
        "body",
        "came_at",
        "headers",
        "retry_at",
        "status",
        "terms",
        "weight",
    )

    def __init__(
        self,
        address: Address,
        status: int,
        headers: Headers,
        body: bytes,
        *,
        terms: Terms,
        came_at: float,
        header: Header,
    ) -> None:
        self.address: Address = address
        self.status: int = status
        self.headers: Headers = headers
        self.body: bytes = body
        self.terms: Terms = terms
        self.came_at: float = came_at
        self.retry_at: float = came_at
        self._variant = variant(terms.names, header) if terms.names else b""
        self.weight: int = (
            _room(address) + len(body) + sum([len(name) + len(value) for name, value in headers])
        )

    def age(self, now: float) -> float:
        """Return how old it is."""
        return self.terms.age + now - self.came_at

    def serves(self, header: Header) -> bool:
        """Whether it is the answer to a request with such header fields as well."""
        names = self.terms.names
        return not names or variant(names, header) == self._variant


@final
class _Index:
    """The names of the fields that tell the answers of an address apart, and where these are."""

    __slots__ = ("names", "weight")

    def __init__(self, names: tuple[bytes, ...], weight: int) -> None:
        self.names = names
        self.weight = weight

    def place(self, header: Header) -> Hashable:
        """Return where the answer to a request is; the index itself is a part of that.

        So a new index of an address leads to none of the old one's answers.
        """
        return self, variant(self.names, header)


@final
class Stock:
    """Answers that are kept.

    Args:
        max_size: How many at most.
        max_bytes: How many bytes of them.

    Complexity: O(1) for each, and O(values) for an answer that varies.
    """

    __slots__ = ("_near",)

    def __init__(self, *, max_size: int, max_bytes: int) -> None:
        self._near: Near[Hashable, Stored | _Index] = Near(
            max_size=max_size, max_weight=max_bytes, weigh=_weigh
        )

    def find(self, address: Address, header: Header, now: float) -> Stored | None:
        """Return the answer to a request, if there is one and it is not over."""
        entry = self._near.find(address, now)
        if entry is not None and isinstance(entry.value, _Index):
            entry = self._near.find(entry.value.place(header), now)
        if entry is None or isinstance(entry.value, _Index):
            return None
        return entry.value

    def place(self, address: Address, header: Header, now: float) -> Hashable:
        """Return what requests have in common that would get the same answer, as far as known."""
        entry = self._near.find(address, now)
        if entry is not None and isinstance(entry.value, _Index):
            return entry.value.place(header)
        return address

    def put(self, stored: Stored, header: Header) -> bool:
        """Keep an answer; return whether there was room for it.

        Args:
            stored: The answer.
            header: Gives the header fields of the request, repeated ones joined.
        """
        index = self._index(stored)
        if index is None:
            return False
        place = index.place(header) if index.names else stored.address
        until = stored.came_at + stored.terms.life
        return self._near.put(place, stored, fresh_until=until, stale_until=until) is not None

    def drop(self, address: Address) -> bool:
        """Forget all answers of an address; return whether there was one."""
        return self._near.drop(address)

    @property
    def evictions(self) -> int:
        """Answers that had to make room for others."""
        return self._near.evictions

    @property
    def weight(self) -> int:
        """Bytes of all answers."""
        return self._near.weight

    def __len__(self) -> int:
        return len(self._near)

    def _index(self, stored: Stored) -> _Index | None:
        """Return the index that an answer goes under; None if it would vary with too much."""
        address = stored.address
        entry = self._near.find(address, stored.came_at)
        index = entry.value if entry is not None and isinstance(entry.value, _Index) else None
        known = () if index is None else index.names
        together = tuple(sorted({*known, *stored.terms.names}))
        if index is not None and together == known:
            return index
        if len(together) > MOST_VARY:
            return None
        index = _Index(together, _room(address))
        if together:
            self._near.put(address, index, fresh_until=math.inf, stale_until=math.inf)
        return index


def _weigh(key: Hashable, value: Stored | _Index) -> int:
    del key
    return value.weight


def _room(address: Address) -> int:
    return _OVERHEAD + len(address[2]) + len(address[3])
