"""Bearer tokens: JWTs that are checked against the keys of their issuer.

::

    Authorization: Bearer eyJ...
      |
      +-- verified within the last minute? ---------------------------> who it is      1 us
      |
      +-- which key, which algorithm: allowed, and fit for each other?   else 401
      +-- the key: known, or fetched once for all who wait               else 401, 503
      +-- signature; exp, nbf, iat, iss, aud, sub                        else 401
      '-> who it is, remembered for at most a minute

What is decided about keys and algorithms stands in ``signatures.py``, how keys are fetched in
``jwks.py``, how tokens are remembered in ``tokens.py``.

Guarantees: see there; besides, every token needs a ``sub`` and an ``exp``, and what is said to
somebody who is refused does not tell which of several checks failed beyond what he knows himself.

Source: RFC 7519 (JWT), RFC 6750 (bearer tokens), RFC 8725 (best current practices).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final
from urllib.parse import urlsplit

from aiopatterns.core.errors import ClosedError
from aiopatterns.core.validate import async_function, choice, in_range, text
from aiopatterns.gateway.aioclient import require
from aiopatterns.gateway.auth import credential, refused
from aiopatterns.gateway.jwks import Jwks
from aiopatterns.gateway.policy import Identity
from aiopatterns.gateway.tokens import BadTokenError, TokenCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiopatterns.core.errors import RequestRefusedError
    from aiopatterns.gateway.jwks import KeyDirectory
    from aiopatterns.gateway.request import Request
    from aiopatterns.gateway.signatures import Key, KeySource, SigningKeys, Token

__all__ = ["JWTAuth", "KeysFrom"]

KeysFrom: TypeAlias = "str | KeySource | Callable[[], Awaitable[bytes | KeySource]]"
"""Where keys come from: an address, keys, or an async function that brings them."""

_HEADER: Final = b"authorization"
_SCHEME: Final = b"bearer "
_BEARER: Final = "Bearer"
#: Seconds that clocks may differ by, at most.
_MOST_LEEWAY: Final = 300
_LONGEST_SUBJECT: Final = 256


@final
class JWTAuth:
    """Clients that send a token which somebody has signed for them.

    Args:
        jwks: The keys of the issuer: the address of its key set, which all routes of a gateway
            share; the key set itself, as a mapping or as joserfc has it; or an async function
            that brings it.
        algorithms: Those that tokens may be signed with, such as ``["RS256"]``.
        issuer: Who may have issued a token (``iss``): a name or several; None for anybody whose
            key is in the set.
        audience: For whom a token may be (``aud``): a name or several, of which it has to have
            one; None for whomever.
        leeway: Seconds that clocks may differ by, 0 to 300.

    Raises:
        ValueError: An algorithm is not known here, keys are no use with the algorithms, or the
            address is none. Secrets (HS256 and its kin) are given in place, never fetched.
        ImportError: joserfc is missing; the message has the command.

    Example::

        auth = JWTAuth(
            "https://login.example.com/.well-known/jwks.json",
            algorithms=["RS256", "ES256"],
            issuer="https://login.example.com/",
            audience="https://api.example.com",
        )
    """

    __slots__ = ("_find", "_tokens", "_url", "_verifier", "header", "name")

    def __init__(
        self,
        jwks: KeysFrom,
        *,
        algorithms: Sequence[str],
        issuer: str | Sequence[str] | None,
        audience: str | Sequence[str] | None,
        leeway: float = 30.0,
    ) -> None:
        require("joserfc")
        from aiopatterns.gateway.signatures import Verifier

        self.name: str = _BEARER
        self.header: bytes = _HEADER
        self._verifier = Verifier(
            _checked_algorithms(algorithms),
            issuers=_names("issuer", issuer),
            audiences=_names("audience", audience),
            leeway=math.ceil(in_range("leeway", leeway, 0, _MOST_LEEWAY)),
        )
        self._tokens = TokenCache()
        self._url: str | None = None
        self._find = self._finder(jwks, algorithms)

    def __repr__(self) -> str:
        return f"JWTAuth({self._url or 'own keys'!r})"

    def bind(self, directory: KeyDirectory) -> None:
        """Fetch keys as a gateway does, and share them with its other routes.

        Called by the gateway. Keys that were given, or come from a function, stay what they are.
        """
        if self._url is not None:
            self._find = directory.of(self._url).find

    def recall(self, request: Request) -> Identity | None:
        """Return whose token a request has, if that was verified lately."""
        token = _token(request)
        return None if token is None else self._tokens.get(token)

    async def verify(self, request: Request) -> Identity:
        """Return whose token a request has.

        Raises:
            RequestRefusedError: It has none, or one that is not valid (401); or the keys to tell
                cannot be fetched (503).

        Cancellation: leaves a fetch of keys to those who wait for it as well.
        """
        value = _token(request)
        if value is None:
            raise refused(_BEARER, "this needs a bearer token")
        try:
            token = self._verifier.read(value)
            keys = await self._find(token.kid, token.algorithm)
            return self._remember(value, token, keys)
        except BadTokenError as error:
            raise _invalid(str(error)) from None

    def _remember(self, value: bytes, token: Token, keys: Sequence[Key]) -> Identity:
        claims, life = self._verifier.verify(token, keys)
        subject = claims["sub"]
        if not (
            isinstance(subject, str) and subject.isprintable() and len(subject) <= _LONGEST_SUBJECT
        ):
            raise _invalid("the token's subject is no name")
        identity = Identity(subject, MappingProxyType(claims), "jwt")
        self._tokens.put(value, identity, life)
        return identity

    def _finder(
        self, jwks: KeysFrom, algorithms: Sequence[str]
    ) -> Callable[[str | None, str], Awaitable[list[Key]]]:
        """Return what finds the keys of a token."""
        if isinstance(jwks, str):
            self._url = _checked_url(jwks)
            _no_secrets(algorithms)
            return self._unbound
        if callable(jwks) and not isinstance(jwks, Mapping):
            _no_secrets(algorithms)
            return Jwks(async_function("jwks", jwks), name="jwks").find
        return _in_place(_own_keys(jwks, algorithms))

    async def _unbound(self, kid: str | None, algorithm: str) -> list[Key]:
        del kid, algorithm
        msg = (
            f"{self!r} has nobody to fetch keys with: give it to a route of a Gateway that is open"
        )
        raise ClosedError(msg)


def _token(request: Request) -> bytes | None:
    """Return the bearer token of a request, if it has exactly one credential and that is one."""
    value = credential(request, _HEADER)
    if value is None or value[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return value[len(_SCHEME) :].strip()


def _invalid(reason: str) -> RequestRefusedError:
    return refused(_BEARER, reason, error="invalid_token")


def _in_place(keys: SigningKeys) -> Callable[[str | None, str], Awaitable[list[Key]]]:
    async def find(kid: str | None, algorithm: str) -> list[Key]:
        return keys.candidates(kid, algorithm)

    return find


def _own_keys(source: Any, algorithms: Sequence[str]) -> SigningKeys:
    """Read keys that were given in place, and see that they are of use.

    Raises:
        ValueError: None of them goes with one of the algorithms.
        TypeError: These are no keys.
    """
    from aiopatterns.gateway.signatures import SigningKeys

    try:
        keys = SigningKeys.of(source)
    except ValueError as error:
        msg = f"jwks must have keys to check signatures with: {error}"
        raise ValueError(msg) from None
    if not any(keys.candidates(None, each) for each in algorithms):
        msg = f"jwks must have a key for one of the algorithms {[*algorithms]}"
        raise ValueError(msg)
    return keys


def _checked_algorithms(algorithms: Sequence[str]) -> Sequence[str]:
    from aiopatterns.gateway.signatures import ALGORITHMS

    if isinstance(algorithms, str):
        msg = f"algorithms must be a list, such as ['RS256'], not {algorithms!r}"
        raise TypeError(msg)
    if not algorithms:
        msg = "algorithms must name at least one, such as 'RS256'"
        raise ValueError(msg)
    for each in algorithms:
        choice("algorithms", each, ALGORITHMS)
    return algorithms


def _no_secrets(algorithms: Sequence[str]) -> None:
    if any(each.startswith("HS") for each in algorithms):
        msg = (
            f"algorithms must be those of public keys where keys are fetched, not {[*algorithms]};"
            " a secret is given in place: jwks={'kty': 'oct', 'k': ...}"
        )
        raise ValueError(msg)


def _names(name: str, given: str | Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names:
        msg = f"{name} must be a name, several, or None, not {given!r}"
        raise ValueError(msg)
    return tuple(text(name, each) for each in names)


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        msg = f"jwks must be an http(s) address without credentials, not {parts._replace(netloc=parts.hostname or '').geturl()!r}"
        raise ValueError(msg)
    return url
