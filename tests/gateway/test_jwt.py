"""Bearer tokens: from the header of a request to who sends it, and all that is refused."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from aiopatterns.core.clock import sleep, wall
from aiopatterns.core.errors import ClosedError, RequestRefusedError
from aiopatterns.gateway.auth import Auth
from aiopatterns.gateway.jwks import KeyDirectory
from aiopatterns.gateway.jwt import JWTAuth
from aiopatterns.gateway.request import Request
from aiopatterns.testing import simulate

RSA = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
PUBLIC: dict[str, Any] = {"keys": [RSA.as_dict(private=False)]}
URL = "https://login.example/keys"


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def auth(jwks: Any = PUBLIC, **changes: Any) -> JWTAuth:
    terms: dict[str, Any] = {"algorithms": ["RS256"], "issuer": "me", "audience": "api"}
    return JWTAuth(jwks, **(terms | changes))


def token(key: Any = RSA, algorithm: str = "RS256", **changes: Any) -> str:
    claims = {"iss": "me", "aud": "api", "sub": "ann", "exp": int(wall()) + 600, **changes}
    named = {} if key.kid is None else {"kid": key.kid}
    return jwt.encode({"alg": algorithm, **named}, claims, key, algorithms=[algorithm])


def sent(*credentials: str) -> Request:
    headers = [(b"authorization", each.encode()) for each in credentials]
    return Request("GET", b"/", b"", [(b"host", b"a"), *headers])


def bearer(value: str) -> Request:
    return sent(f"Bearer {value}")


async def refusal(which: JWTAuth, request: Request) -> str:
    """Return what somebody who is refused is told."""
    assert which.recall(request) is None
    with pytest.raises(RequestRefusedError) as caught:
        await which.verify(request)
    assert caught.value.status == 401
    return dict(caught.value.headers)[b"www-authenticate"].decode()


async def test_who_has_a_valid_token_is_let_in_and_remembered():
    which, request = auth(), bearer(token(role="admin"))
    assert which.recall(request) is None
    identity = await which.verify(request)
    assert (identity.subject, identity.via, identity.claims["role"]) == ("ann", "jwt", "admin")
    assert which.recall(request) is identity
    with pytest.raises(TypeError):
        wrong(identity.claims)["role"] = "root"
    assert isinstance(which, Auth)
    assert (await which.verify(sent(f"bEARER   {token()} "))).subject == "ann"


def test_a_token_is_not_remembered_beyond_its_end():
    async def main() -> None:
        which = auth(leeway=0)
        short = bearer(token(exp=int(wall()) + 20))
        await which.verify(short)
        await sleep(15)
        assert which.recall(short) is not None
        await sleep(6)
        assert "the token has expired" in await refusal(which, short)
        long = bearer(token())
        await which.verify(long)
        await sleep(61)
        assert which.recall(long) is None
        await which.verify(long)

    simulate(main)


@pytest.mark.parametrize(
    "request_",
    [
        sent(),
        sent("Basic YTpi"),
        sent("Bearer"),
        sent(token()),
        sent(f"Bearer {token()}", f"Bearer {token()}"),
    ],
)
async def test_who_has_no_token_is_told_to_bring_one(request_):
    assert await refusal(auth(), request_) == 'Bearer realm="gateway"'


@pytest.mark.promise("gateway-jwt-attacks")
async def test_what_is_refused_tells_no_secrets():
    which = auth()
    for value in ("x", "a.b.c", token(iss="you"), token(RSAKey.generate_key(2048, {"kid": "rsa"}))):
        told = await refusal(which, bearer(value))
        assert told.startswith('Bearer realm="gateway", error="invalid_token"')
        assert "rsa" not in told
        assert "you" not in told


@pytest.mark.promise("gateway-jwt-attacks")
@pytest.mark.parametrize("subject", ["a\r\nX-Admin: 1", "a\x00", "a" * 300, "\u202eann"])
async def test_a_subject_that_is_no_name_is_refused(subject):
    assert "no name" in await refusal(auth(), bearer(token(sub=subject)))


async def test_names_of_all_people():
    assert (
        await auth().verify(bearer(token(sub="J\u00fcrgen M\u00fcller")))
    ).subject == "Jürgen Müller"


@pytest.mark.parametrize(
    "keys", [PUBLIC, PUBLIC["keys"][0], RSA, KeySet([RSA]), KeySet([OctKey.generate_key(256), RSA])]
)
async def test_keys_in_place_in_all_their_forms(keys):
    assert (await auth(keys).verify(bearer(token()))).subject == "ann"


async def test_keys_that_a_function_brings():
    calls = [0]

    async def fetch() -> Any:
        calls[0] += 1
        return PUBLIC

    which = auth(fetch)
    for _ in range(3):
        await which.verify(bearer(token(n=calls[0])))
    assert calls == [1]


async def test_a_secret_in_place():
    secret = OctKey.generate_key(256)
    which = auth(secret.as_dict(private=True), algorithms=["HS256"])
    assert (await which.verify(bearer(token(secret, "HS256")))).subject == "ann"


async def test_an_address_is_fetched_by_the_gateway_once_for_all_routes():
    fetched: list[str] = []

    async def fetch(url: str) -> bytes:
        fetched.append(url)
        return wrong(PUBLIC)

    directory = KeyDirectory(fetch)
    routes = [auth(URL), auth(URL, audience=["api", "x"])]
    for which in routes:
        with pytest.raises(ClosedError, match="Gateway"):
            await which.verify(bearer(token()))
        which.bind(directory)
        assert (await which.verify(bearer(token()))).subject == "ann"
    assert fetched == [URL]
    assert repr(routes[0]) == f"JWTAuth({URL!r})"


def test_keys_that_are_given_stay_what_they_are():
    async def main() -> None:
        which = auth()
        which.bind(KeyDirectory(wrong(None)))
        assert (await which.verify(bearer(token()))).subject == "ann"
        assert repr(which) == "JWTAuth('own keys')"

    simulate(main)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"algorithms": []}, ValueError, "algorithms must name at least one"),
        ({"algorithms": "RS256"}, TypeError, "algorithms must be a list"),
        ({"algorithms": ["none"]}, ValueError, "algorithms must be one of"),
        ({"algorithms": ["RS256", "HS1"]}, ValueError, "algorithms must be one of"),
        ({"algorithms": ["ES256"]}, ValueError, "a key for one of the algorithms"),
        ({"algorithms": ["HS256"], "jwks": URL}, ValueError, "a secret is given in place"),
        ({"jwks": "keys.json"}, ValueError, r"http\(s\) address"),
        ({"jwks": "ftp://a/keys"}, ValueError, r"http\(s\) address"),
        ({"jwks": "https:///keys"}, ValueError, r"http\(s\) address"),
        ({"jwks": "https://user:pass@login/keys"}, ValueError, r"not 'https://login/keys'"),
        ({"jwks": {}}, ValueError, "jwks must have keys"),
        ({"jwks": {"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}}, ValueError, "jwks must have keys"),
        ({"jwks": 5}, TypeError, "jwks must be"),
        ({"jwks": lambda: PUBLIC, "algorithms": ["HS256"]}, ValueError, "given in place"),
        ({"issuer": ""}, ValueError, "issuer must be"),
        ({"issuer": []}, ValueError, "issuer must be"),
        ({"audience": [5]}, TypeError, "audience must be"),
        ({"leeway": -1}, ValueError, "leeway must be between 0 and 300"),
        ({"leeway": 301}, ValueError, "leeway must be between 0 and 300"),
    ],
)
def test_bad_input(changes, error, text):
    with pytest.raises(error, match=text) as caught:
        auth(**changes)
    assert "pass" not in str(caught.value)


def test_a_plain_function_is_refused():
    def keys() -> Any:
        return PUBLIC

    with pytest.raises(TypeError, match="async"):
        auth(keys)


async def test_none_asks_for_no_issuer_and_no_audience():
    which = auth(ECKey.generate_key("P-256"), algorithms=["ES256"], issuer=None, audience=None)
    assert "not signed by a key" in await refusal(
        which, bearer(token(ECKey.generate_key("P-256"), "ES256"))
    )
