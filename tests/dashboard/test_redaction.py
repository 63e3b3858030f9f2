from __future__ import annotations

import time

import pytest

from aiopatterns.dashboard.redaction import clean, shape, shown

# Apart, for no file may look as if it held one.
KEY = "PRIVATE" + " KEY"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("redis://user:geheim@host:6379/0", "redis://user:***@host:6379/0"),
        ("postgresql+psycopg://u:geheim@h/db and more", "postgresql+psycopg://u:***@h/db and more"),
        ("redis://:geheim@h", "redis://:***@h"),
        ("Authorization: Bearer geheim.geheim-geheim", "Authorization: *** ***"),
        ("sent bearer geheimgeheim", "sent bearer ***"),
        ("password=geheim&user=bob", "password=***&user=bob"),
        ("DB_PASSWORD = 'geheim und mehr', x", "DB_PASSWORD = ***, x"),
        ('{"api_key": "geheim", "n": 1}', '{"api_key": ***, "n": 1}'),
        ("client_secret: geheim", "client_secret: ***"),
        ("eyJhbGciOiJI.eyJnZWhlaW0i.geheim", "***"),
        (f"-----BEGIN RSA {KEY}-----\ngeheim\n-----END RSA {KEY}-----", "***"),
        (f"-----BEGIN {KEY}-----\ngeheim", "***"),
    ],
)
def test_secrets_are_told_by_their_shape(text, kept):
    assert clean(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job 17 failed: KeyError('name')",
        "http://example.org/a?b=c",
        "the tokens are counted",
        "mail to bob@example.org: done",
        "a" * 10_000,
    ],
)
def test_the_rest_stays(text):
    assert clean(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "userPassword",
        "API_KEY",
        "apiKey",
        "x-api-key",
        "access_token",
        "tokens",
        "secret",
        "session_id",
        "dsn",
    ],
)
def test_fields_are_told_by_their_names(name):
    assert shown("geheim", name=name) == "***"
    assert "geheim" not in shown({"a": [{name: "geheim", "b": 1}]})
    assert "geheim" not in shown({"a": [{name: ["geheim"]}]})


@pytest.mark.parametrize("name", ["compass", "tokenizer", "size", "to", "passenger", "bypass_all"])
def test_other_names_are_none(name):
    assert shown("open", name=name) == "'open'"


def test_values_are_shortened():
    assert len(shown("x" * 10_000)) < 300
    assert len(shown(list(range(10_000)))) < 300
    assert len(shown({str(n): n for n in range(10_000)})) < 300
    deep: object = "geheim"
    for _ in range(50):
        deep = [deep]
    assert shown(deep) == "[[[[...]]]]"
    assert shown({"a": (1, 2.5, None, True, b"x")}) == "{'a': [1, 2.5, None, True, b'x']}"


def test_shapes_say_kind_and_size():
    assert [shape(each) for each in (None, True, 1, 2.5, "abc", b"", [1], (1, 2), {"a": 1})] == [
        "NoneType", "bool", "int", "float", "str[3]", "bytes[0]", "list[1]", "tuple[2]", "dict[1]",
    ]  # fmt: skip
    assert shape(object()) == "object"


@pytest.mark.untraced
@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a.",
        "a-",
        "eyJaaaaaaa-",
        "://",
        "a://b:",
        "token",
        "token=",
        "token='",
        "Bearer ",
        "pass ",
        "-----BEGIN ",
    ],
)
def test_no_text_takes_long(unit):
    began = time.process_time()
    clean(unit * (20_000 // len(unit)))
    assert time.process_time() - began < 0.5
