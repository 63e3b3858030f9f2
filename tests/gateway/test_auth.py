"""API keys: who is let in, who is not, and that no key is seen anywhere."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.gateway.auth import APIKeyAuth, Auth, credential, refused
from aiopatterns.gateway.request import Request


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def sent(*values: bytes, header: bytes = b"x-api-key") -> Request:
    return Request("GET", b"/", b"", [(b"host", b"a"), *[(header, each) for each in values]])


async def test_a_client_is_who_has_its_key():
    auth = APIKeyAuth({"shop": "s3cret", "app": ["old", "new"]})
    for key, client in ((b"s3cret", "shop"), (b"old", "app"), (b"new", "app")):
        identity = auth.recall(sent(key))
        assert identity is not None
        assert (identity.subject, identity.via, identity.claims) == (client, "key", {})
        assert await auth.verify(sent(key)) == identity
    assert isinstance(auth, Auth)


@pytest.mark.promise("gateway-keys")
@pytest.mark.parametrize(
    "values",
    [
        (),
        (b"",),
        (b"s3cre",),
        (b"s3crett",),
        (b"S3CRET",),
        (b" s3cret",),
        (b"s3cret", b"s3cret"),
        (b"\xff" * 99,),
    ],
)
async def test_everybody_else_is_refused(values):
    auth = APIKeyAuth({"shop": "s3cret"})
    assert auth.recall(sent(*values)) is None
    with pytest.raises(RequestRefusedError) as caught:
        await auth.verify(sent(*values))
    assert caught.value.status == 401
    assert caught.value.headers == ((b"www-authenticate", b'ApiKey realm="gateway"'),)


def test_the_header_may_be_another():
    auth = APIKeyAuth({"shop": "s3cret"}, header="X-Token")
    assert auth.recall(sent(b"s3cret")) is None
    assert auth.recall(sent(b"s3cret", header=b"x-token")) is not None
    assert auth.header == b"x-token"


@pytest.mark.promise("gateway-keys")
def test_no_key_is_seen():
    auth = APIKeyAuth({"shop": "s3cret-key"})
    assert repr(auth) == "APIKeyAuth(1 keys)"
    assert "s3cret" not in repr([getattr(auth, each) for each in APIKeyAuth.__slots__])
    for keys in ({"a": "s3cret key"}, {"a": "s3cret", "b": "s3cret"}, {"a": ["s3cret\u00e9"]}):
        with pytest.raises(ValueError, match="the key of") as caught:
            APIKeyAuth(keys)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "error", "text"),
    [
        ({}, ValueError, "at least one client"),
        ({"a": ""}, ValueError, "the key of 'a'"),
        ({"": "x"}, ValueError, "client must be"),
        ({"a": [5]}, ValueError, "the key of 'a'"),
        (["a"], TypeError, "keys must be a mapping"),
    ],
)
def test_bad_input(keys, error, text):
    with pytest.raises(error, match=text):
        APIKeyAuth(wrong(keys))


def test_a_credential_comes_once():
    assert credential(sent(b"a"), b"x-api-key") == b"a"
    assert credential(sent(), b"x-api-key") is credential(sent(b"a", b"a"), b"x-api-key") is None


def test_a_refusal_says_how_to_come_in():
    error = refused("Bearer", "the token has expired", error="invalid_token")
    challenge = dict(error.headers)[b"www-authenticate"].decode()
    assert challenge == (
        'Bearer realm="gateway", error="invalid_token", error_description="the token has expired"'
    )
