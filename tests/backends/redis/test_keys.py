from __future__ import annotations

import pytest

from aiopatterns.backends.redis.keys import key_of


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "a"), b"a"),
        (("get", b"a"), b"a"),
        (("SET", "é", b"v", "PX", 1), "é".encode()),
        (("DEL", 5), b"5"),
        (("XADD", "s", "*", "f", "v"), b"s"),
        (("EVALSHA", "sha", 2, "k1", "k2", "x"), b"k1"),
        (("EVAL", "return 1", "1", "k1"), b"k1"),
        (("EVAL", "return 1", 0), None),
        (("XREAD", "BLOCK", 5, "STREAMS", "s", "0"), b"s"),
        (("XREADGROUP", "GROUP", "g", "c", "streams", b"s", ">"), b"s"),
        (("XGROUP", "CREATE", "s", "g", "0"), b"s"),
        (("XINFO", "STREAM", "s"), b"s"),
        (("ZUNION", 2, "a", "b"), b"a"),
        (("PING",), None),
        (("TIME",), None),
        (("PUBLISH", "c", b"m"), None),
    ],
)
def test_where_the_key_is(command, key):
    assert key_of(command) == key
