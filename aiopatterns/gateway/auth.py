"""Who is there: the protocol of authentication, and API keys.

A route with ``auth=`` takes requests only of those it can name. The name goes to the service as
``X-User-Id``, and is whose limits a request counts against; a client's own ``X-User-Id`` never
passes::

    recall(request)         known from the last time: no waiting, about 1 us
    verify(request)         looked at anew; may wait, for the keys of an issuer
    RequestRefusedError     401, with what to send in WWW-Authenticate

Guarantees:

* Who cannot be verified is refused, also when the means to verify are away: 503, never a pass.
* API keys are compared by their hashes, in constant time; the keys themselves are not kept, so no
  repr, error or dump of memory shows one.
* A credential that comes twice in a request is refused: the service might look at the other one.

Source: RFC 9110 section 11 (authentication), RFC 6750 (bearer tokens).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from hmac import compare_digest
from secrets import token_bytes
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, cast, final, runtime_checkable

from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.core.validate import instance, text
from aiopatterns.gateway.policy import Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.gateway.request import Request

__all__ = ["APIKeyAuth", "Auth", "credential", "refused"]

# The first bytes of a hash find an entry, the others are compared.
_FINDS: Final = 16
_NOBODY: Final[Mapping[str, object]] = MappingProxyType({})
_NO_PROOF: Final = bytes(_FINDS)


@runtime_checkable
class Auth(Protocol):
    """What a route asks who somebody is; users may bring their own.

    Attributes:
        name: What it is called in the answer to those who are refused.
        header: The header that it looks at, in lower case.
    """

    name: str
    header: bytes

    def recall(self, request: Request) -> Identity | None:
        """Return who sends a request if that is known already; never waits, refuses nobody."""
        ...

    async def verify(self, request: Request) -> Identity:
        """Return who sends a request.

        Raises:
            RequestRefusedError: It cannot be told (401, or 503 if it cannot be told now).
        """
        ...


@final
class APIKeyAuth:
    """Clients that send a key of their own.

    Args:
        keys: The key of each client, by its name; several while a client changes its key.
        header: The header that the key is sent in.

    Raises:
        ValueError: A name or a key is empty, a key is not visible ASCII, or two clients have the
            same one; no error shows a key.

    Example::

        Route("/api", to="api", auth=APIKeyAuth({"shop": shop_key, "app": [old_key, new_key]}))
    """

    __slots__ = ("_clients", "_salt", "header", "name")

    def __init__(
        self, keys: Mapping[str, str | Sequence[str]], *, header: str = "X-API-Key"
    ) -> None:
        instance("keys", keys, Mapping, "a mapping from the name of a client to its key")
        self.name: str = "ApiKey"
        self.header: bytes = text("header", header).lower().encode("ascii")
        # A salt that nobody knows: what a hash begins with, and so how long a look takes, says
        # nothing about a key.
        self._salt = token_bytes(32)
        self._clients: dict[bytes, tuple[bytes, Identity]] = {}
        for client, given in keys.items():
            identity = Identity(text("client", client), _NOBODY, "key")
            for key in [given] if isinstance(given, str) else given:
                self._add(identity, key)
        if not self._clients:
            msg = "keys must have at least one client"
            raise ValueError(msg)

    def __repr__(self) -> str:
        return f"APIKeyAuth({len(self._clients)} keys)"

    def recall(self, request: Request) -> Identity | None:
        """Return whose key a request has; None if it has none that is known."""
        key = credential(request, self.header)
        if key is None:
            return None
        hashed = self._hash(key)
        proof, identity = self._clients.get(hashed[:_FINDS], (_NO_PROOF, None))
        return identity if compare_digest(hashed[_FINDS:], proof) else None

    async def verify(self, request: Request) -> Identity:
        """Return whose key a request has.

        Raises:
            RequestRefusedError: It has none, two, or one that is not known (401).
        """
        identity = self.recall(request)
        if identity is None:
            raise refused(self.name, "this needs a valid API key")
        return identity

    def _add(self, identity: Identity, key: str) -> None:
        if not (isinstance(cast("object", key), str) and key and key.isascii() and _visible(key)):
            msg = f"the key of {identity.subject!r} must be visible ASCII characters"
            raise ValueError(msg)
        hashed = self._hash(key.encode())
        if hashed[:_FINDS] in self._clients:
            msg = f"the key of {identity.subject!r} is that of another client, or listed twice"
            raise ValueError(msg)
        self._clients[hashed[:_FINDS]] = (hashed[_FINDS:], identity)

    def _hash(self, key: bytes) -> bytes:
        return blake2b(key, key=self._salt, digest_size=2 * _FINDS).digest()


def credential(request: Request, header: bytes) -> bytes | None:
    """Return what a request says in a header that may come once; None if it says nothing, or more.

    Args:
        request: The request.
        header: The header's name, in lower case.
    """
    values = [value for name, value in request.headers if name == header]
    return values[0] if len(values) == 1 else None


def refused(scheme: str, reason: str, *, error: str = "") -> RequestRefusedError:
    """Return a 401 that says how to authenticate.

    Args:
        scheme: Of authentication.
        reason: One line for the client.
        error: The code of RFC 6750, for those who sent a token.
    """
    challenge = f'{scheme} realm="gateway"'
    if error:
        challenge += f', error="{error}", error_description="{reason}"'
    return RequestRefusedError(
        reason, status=401, headers=[(b"www-authenticate", challenge.encode())]
    )


def _visible(key: str) -> bool:
    return key.isprintable() and " " not in key
