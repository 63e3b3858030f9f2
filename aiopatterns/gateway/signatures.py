"""Signatures of tokens: which key may check which token, and what a token has to say.

This is the one file that talks to joserfc, which checks signatures and claims. What is decided here
is what an attacker would like to decide:

* The *key* comes from our set alone. A key, or an address of one, in the token (``jwk``, ``jku``,
  ``x5c``, ``x5u``) is never looked at, and a ``kid`` is nothing but a name in that set.
* The *algorithm* belongs to the key. A token may only name one that both its key and the
  allow-list have, so a public RSA key is never the secret of an HMAC, and ``none`` is never one.
* A token that is *critical* about something (``crit``) is refused, for nothing of that is known.

A key set is read leniently, as RFC 7517 wants: keys that are for something else, too short, or of
an unknown kind are left out.

Source: RFC 7515 (JWS), RFC 7517 (JWK), RFC 7518 (JWA), RFC 7519 (JWT), RFC 8725 (JWT best current
practices).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, final

from joserfc.errors import ExpiredTokenError
from joserfc.jwk import ECKey, JWKRegistry, KeySet, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry, extract_compact, validate_compact
from joserfc.jwt import JWTClaimsRegistry

from aiopatterns.core.clock import wall
from aiopatterns.core.codec import JSON
from aiopatterns.core.validate import instance
from aiopatterns.gateway.tokens import BadTokenError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from joserfc.jws import CompactSignature


__all__ = ["ALGORITHMS", "Key", "KeySource", "SigningKeys", "Token", "Verifier"]

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = MappingProxyType({"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"})
_EDWARDS: Final = ("EdDSA", "Ed25519")
# Bytes of a secret at least: the size of the hash (RFC 7518, section 3.2).
_SECRETS: Final = MappingProxyType({"HS256": 32, "HS384": 48, "HS512": 64})
_SHORTEST_RSA: Final = 2048
#: What may stand in a list of allowed algorithms.
ALGORITHMS: Final = (*_SECRETS, *_RSA, *_CURVES.values(), *_EDWARDS)

# Tokens with certificates in their headers are longer than joserfc expects.
_HEADER_BYTES: Final = 8 * 1024
_LONGEST_NAME: Final = 256

Key: TypeAlias = OctKey | RSAKey | ECKey | OKPKey
"""A key of joserfc."""

_SOURCES: Final = (Mapping, KeySet, OctKey, RSAKey, ECKey, OKPKey)
KeySource: TypeAlias = Mapping[str, Any] | KeySet | OctKey | RSAKey | ECKey | OKPKey
"""Where keys are in: a JWK set, a single JWK, or what joserfc made of one."""


@final
class _Registry(JWSRegistry):
    """The allowed algorithms; unknown header fields are ignored, as RFC 7515 wants."""

    def __init__(self, algorithms: Collection[str]) -> None:
        super().__init__(algorithms=frozenset(algorithms), strict_check_header=False)
        self.max_header_length = _HEADER_BYTES

    def get_alg(self, name: str) -> Any:
        """Return an algorithm (of a type that joserfc does not export) without an opinion on it."""
        return self.algorithms[name]


@final
class SigningKeys:
    """The keys that may have signed a token, immutable.

    Args:
        keys: Keys; those that cannot check a signature are left out.

    Raises:
        ValueError: There is no other.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[Key]) -> None:
        fit = [(key, algorithms) for key in keys if (algorithms := _allowed(key))]
        if not fit:
            msg = "there is no key that can check a signature (too short ones are left out)"
            raise ValueError(msg)
        self._keys: tuple[tuple[Key, frozenset[str]], ...] = tuple(fit)

    @classmethod
    def of(cls, source: KeySource) -> SigningKeys:
        """Read a JWK set, a single JWK, or a key or key set of joserfc.

        Raises:
            ValueError: It has no key that can check a signature.
            TypeError: It is something else.
        """
        return cls(_keys_of(instance("jwks", source, _SOURCES, "a JWK set or a key of joserfc")))

    @classmethod
    def published(cls, document: bytes | KeySource) -> SigningKeys:
        """Read what an issuer publishes: without secrets, for what is public is none.

        Raises:
            ValueError: It is no key set, or has no key that can check a signature.
            CodecError: It is no JSON.
        """
        source: KeySource
        source = JSON.decode(document, dict[str, Any]) if isinstance(document, bytes) else document
        return cls(key for key in _keys_of(source) if not isinstance(key, OctKey))

    @property
    def kids(self) -> frozenset[str]:
        """The names of the keys."""
        return frozenset(key.kid for key, _ in self._keys if key.kid is not None)

    def candidates(self, kid: str | None, algorithm: str) -> list[Key]:
        """Return the keys that may have signed a token.

        Args:
            kid: The name of the key, as the token says; None if it says none.
            algorithm: Of the signature, as the token says.
        """
        return [
            key
            for key, algorithms in self._keys
            if algorithm in algorithms and (kid is None or key.kid is None or key.kid == kid)
        ]


@final
class Token:
    """A token as it came, nothing of it verified.

    Args:
        value: As sent.

    Attributes:
        kid: The name of its key, or None.
        algorithm: Of its signature.

    Raises:
        BadTokenError: It is no token.
    """

    __slots__ = ("_parsed", "algorithm", "kid")

    def __init__(self, value: bytes, registry: JWSRegistry) -> None:
        try:
            self._parsed: CompactSignature = extract_compact(value, None, registry)
            header = self._parsed.headers()
            kid, algorithm = header.get("kid"), header["alg"]
        except Exception:
            # Strangers' bytes, and parsers of other people: whatever it is, it is no token.
            raise BadTokenError("the token is malformed") from None
        if not isinstance(algorithm, str) or "crit" in header:
            raise BadTokenError("the token is malformed")
        if kid is not None and not (isinstance(kid, str) and len(kid) <= _LONGEST_NAME):
            raise BadTokenError("the token is malformed")
        self.algorithm: str = algorithm
        self.kid: str | None = kid

    def signed_by(self, key: Key, registry: JWSRegistry) -> bool:
        """Whether a key has signed it."""
        try:
            return validate_compact(self._parsed, key, registry=registry)
        except Exception:
            return False

    @property
    def payload(self) -> bytes:
        """What it says; not to be believed before :meth:`signed_by`."""
        return self._parsed.payload


@final
class Verifier:
    """What a token has to be and to say.

    Args:
        algorithms: Those that are allowed.
        issuers: Who may have issued it; empty for anybody.
        audiences: Of whom it has to name one; empty for none.
        leeway: Seconds that clocks may differ by.
    """

    __slots__ = ("_algorithms", "_leeway", "_options", "_registry")

    def __init__(
        self,
        algorithms: Collection[str],
        *,
        issuers: Collection[str],
        audiences: Collection[str],
        leeway: int,
    ) -> None:
        self._algorithms = frozenset(algorithms)
        self._registry = _Registry(algorithms)
        self._leeway = leeway
        self._options: dict[str, Any] = {
            "exp": {"essential": True},
            "sub": {"essential": True},
        }
        if issuers:
            self._options["iss"] = {"essential": True, "values": [*issuers]}
        if audiences:
            self._options["aud"] = {"essential": True, "values": [*audiences]}

    def read(self, value: bytes) -> Token:
        """Read a token; nothing of it is verified yet.

        Raises:
            BadTokenError: It is no token, or its algorithm is not allowed.
        """
        token = Token(value, self._registry)
        if token.algorithm not in self._algorithms:
            raise BadTokenError("the token is signed in a way that is not accepted here")
        return token

    def verify(self, token: Token, keys: Iterable[Key]) -> tuple[dict[str, object], float]:
        """Check the signature of a token, and what it says.

        Args:
            token: The token.
            keys: Those that may have signed it.

        Returns:
            Its claims, and the seconds that it is valid from now on.

        Raises:
            BadTokenError: It is not valid.
        """
        if not any(token.signed_by(key, self._registry) for key in keys):
            raise BadTokenError("the token is not signed by a key that is known here")
        now = wall()
        try:
            claims: dict[str, Any] = JSON.decode(token.payload, dict[str, Any])
            JWTClaimsRegistry(int(now), self._leeway, **self._options).validate(claims)
            life = float(claims["exp"]) + self._leeway - now
        except ExpiredTokenError:
            raise BadTokenError("the token has expired") from None
        except Exception:
            raise BadTokenError("the token is not meant for this place or time") from None
        return claims, life


def _keys_of(source: KeySource) -> Iterable[Key]:
    """Import the keys of a source; those that cannot be are left out."""
    if isinstance(source, KeySet):
        return source.keys
    if not isinstance(source, Mapping):
        return [source]
    found: list[Key] = []
    for each in _listed(source.get("keys", [source])):
        with suppress(Exception):  # of an unknown kind, or broken: RFC 7517 wants it ignored
            found.append(JWKRegistry.import_key(each))
    return found


def _listed(keys: Any) -> Iterable[Any]:
    """Return what may be keys, whatever stands in their place."""
    return cast("Iterable[Any]", keys) if isinstance(keys, list) else ()


def _allowed(key: Key) -> frozenset[str]:
    """Return the algorithms that a key may be used with; none if it is for something else."""
    if key.get("use", "sig") != "sig" or "verify" not in (key.get("key_ops") or ("verify",)):
        return frozenset()
    fit = frozenset(_fit(key))
    return fit if key.alg is None else fit & {key.alg}


def _fit(key: Key) -> Iterable[str]:
    if isinstance(key, OctKey):
        return [name for name, least in _SECRETS.items() if len(key.raw_value) >= least]
    if isinstance(key, RSAKey):
        return _RSA if key.public_key.key_size >= _SHORTEST_RSA else ()
    if isinstance(key, ECKey):
        return [name for curve, name in _CURVES.items() if curve == key.curve_name]
    return _EDWARDS if key.curve_name == "Ed25519" else ()
