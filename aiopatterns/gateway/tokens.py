"""Tokens that were verified already, so that a signature is not checked for each request.

A signature costs 15 to 110 us, a look here 1 us. A token is known by its SHA-256: what stands in
this table is of no use to whoever reads it.

Guarantees: no token is known longer than :data:`LONGEST` seconds, nor longer than it is valid; at
most ``max_size`` are known, the least recently used goes.

Not guaranteed: that a token whose key or owner was revoked is refused before those seconds are over.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from aiopatterns.gateway.policy import Identity

__all__ = ["LONGEST", "MOST_TOKENS", "BadTokenError", "TokenCache"]

#: Seconds that a verified token is believed without another look, at most.
LONGEST: Final = 60.0
#: Tokens that are known at once; about 0.5 KiB each, without their claims.
MOST_TOKENS: Final = 10_000


class BadTokenError(Exception):
    """A token is not one of ours, or not valid any more; the text is fit for its sender."""


@final
class TokenCache:
    """Identities by token.

    Args:
        max_size: Tokens at most.

    Complexity: O(length of the token) for each.
    """

    __slots__ = ("_known", "_max_size")

    def __init__(self, max_size: int = MOST_TOKENS) -> None:
        self._max_size = max_size
        self._known: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()

    def get(self, token: bytes) -> Identity | None:
        """Return whose token it is, if it was verified lately."""
        name = sha256(token).digest()
        found = self._known.get(name)
        if found is None:
            return None
        if monotonic() >= found[0]:
            del self._known[name]
            return None
        self._known.move_to_end(name)
        return found[1]

    def put(self, token: bytes, identity: Identity, life: float) -> None:
        """Remember a token that was verified.

        Args:
            token: As sent.
            identity: Whose it is.
            life: Seconds that it is valid from now on.
        """
        if life <= 0:
            return
        name = sha256(token).digest()
        self._known[name] = (monotonic() + min(life, LONGEST), identity)
        self._known.move_to_end(name)
        if len(self._known) > self._max_size:
            self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)
