"""Tokens that were verified: for how long, how many, and that none of them is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.gateway.policy import Identity
from aiopatterns.gateway.tokens import LONGEST, TokenCache
from aiopatterns.testing import simulate

ANN = Identity("ann", {}, "jwt")


def test_a_token_is_known_as_long_as_it_is_valid_and_never_longer_than_a_minute():
    async def main() -> None:
        cache = TokenCache()
        cache.put(b"short", ANN, 10)
        cache.put(b"long", ANN, 1e9)
        cache.put(b"over", ANN, 0)
        assert cache.get(b"short") is cache.get(b"long") is ANN
        assert cache.get(b"over") is cache.get(b"else") is None
        await sleep(10)
        assert cache.get(b"short") is None
        assert len(cache) == 1, "what is over goes when it is asked for"
        await sleep(LONGEST - 10)
        assert cache.get(b"long") is None

    simulate(main)


def test_the_one_that_was_not_used_for_longest_goes():
    cache = TokenCache(2)
    cache.put(b"a", ANN, 60)
    cache.put(b"b", ANN, 60)
    cache.get(b"a")
    cache.put(b"c", ANN, 60)
    assert [cache.get(each) for each in (b"a", b"b", b"c")] == [ANN, None, ANN]


def test_the_token_itself_is_not_kept():
    cache = TokenCache()
    cache.put(b"secret", ANN, 60)
    assert "secret" not in repr(vars(TokenCache)["_known"].__get__(cache))


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["put", "get"])), max_size=40))
def test_it_is_a_table_of_the_last_used(steps):
    cache, model = TokenCache(3), dict[bytes, Identity]()
    for n, verb in steps:
        token = b"%d" % n
        if verb == "put":
            model.pop(token, None)
            model[token] = identity = Identity(str(n), {}, "jwt")
            cache.put(token, identity, monotonic() + 60)
            if len(model) > 3:
                del model[next(iter(model))]
        else:
            assert cache.get(token) == model.get(token)
            if token in model:
                model[token] = model.pop(token)
    assert len(cache) == len(model)
