"""@cached: the function, behind its key."""

from __future__ import annotations

import copy
import inspect
import pickle
from types import MethodType
from typing import Any

import pytest

from aiopatterns.cache import MISSING, Bounds, Cache, cached, decorator
from aiopatterns.core.clock import sleep


@pytest.fixture
def cache() -> Cache[str, object]:
    return Cache("functions", ttl=60)


async def test_equal_keys_share_one_value(cache):
    calls = []

    @cached(cache, key="user:{user_id}")
    async def load(user_id: int, *, trace: str = "") -> str:
        """Load it."""
        calls.append((user_id, trace))
        return f"user {user_id}"

    assert await load(7) == "user 7"
    assert await load(7, trace="x") == "user 7"
    assert await load(user_id=7) == "user 7"
    assert await load(8) == "user 8"
    assert calls == [(7, ""), (8, "")]
    function: Any = load
    assert (function.__name__, function.__doc__) == ("load", "Load it.")
    assert inspect.iscoroutinefunction(load)
    assert load.key(7, trace="y") == "user:7"
    assert cache.get_nowait("user:7") == "user 7"
    assert cache.statistics().hits == 3


async def test_its_key_can_be_loaded_anew_and_forgotten(cache):
    calls = []

    @cached(cache, key="k:{n}")
    async def load(n: int) -> int:
        calls.append(n)
        return len(calls)

    assert [await load(1), await load.fresh(1), await load(1)] == [1, 2, 2]
    await load.invalidate(1)
    assert await load(1) == 3
    await cache.clear()
    assert await load(1) == 4
    await cache.set("k:1", 9)
    assert await load(1) == 9


async def test_values_that_are_equal_but_read_differently_have_keys_of_their_own(cache):
    @cached(cache, key="k:{n}")
    async def load(n: object) -> str:
        return repr(n)

    assert [await load(each) for each in (1, True, 1.0, "1", 1, True)] == [
        "1",
        "True",
        "1.0",
        "1",  # equal as text to the first
        "1",
        "True",
    ]


async def test_a_key_may_be_a_function_and_a_long_key_is_cut(cache):
    @cached(cache, key=lambda a, b=0: (a, b))
    async def add(a: int, b: int = 0) -> int:
        return a + b

    assert [await add(1), await add(1, b=2), await add(1, 2)] == [1, 3, 3]
    assert add.key(1, 2) == (1, 2)

    @cached(cache, key="text:{text}")
    async def size(text: str) -> int:
        return len(text)

    for length in (1_000, 1_001, 1_000):
        assert await size("x" * length) == length
    assert len(size.key("x" * 1_000)) == 200
    assert cache.statistics().loads == 4


@pytest.mark.parametrize("eviction", ["s3fifo", "lru"])
async def test_short_cuts_are_bounded_and_end_with_the_entry(monkeypatch, eviction):
    monkeypatch.setattr(decorator, "_MOST_SHORT", 3)
    cache: Cache[str, int] = Cache("short", ttl=60, max_size=Bounds(4, eviction=eviction))
    loads = []

    @cached(cache, key="n:{n}")
    async def load(n: int) -> int:
        loads.append(n)
        return n

    for n in range(8):
        for _ in range(3):
            assert await load(n) == n
    assert loads == list(range(8))
    assert cache.statistics().hits == 16
    gone = [n for n in range(8) if cache.get_nowait(f"n:{n}") is MISSING]
    assert len(gone) == 4
    assert await load(gone[-1]) == gone[-1]
    assert len(loads) == 9, "a short cut to what has left leads nowhere"
    assert [await load(gone[-1]), await load(gone[-1])] == [gone[-1]] * 2
    await cache.clear()
    assert await load(gone[-1]) == gone[-1]
    assert len(loads) == 10


async def test_what_cannot_be_hashed_can_be_in_a_key(cache):
    @cached(cache, key="sum:{numbers}")
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    assert [await total([1, 2]), await total([1, 2])] == [3, 3]
    assert cache.statistics().loads == 1


async def test_methods_and_attributes(cache):
    class Shop:
        def __init__(self, name):
            self.name = name

        @cached(cache, key="{self.name}/{item}", tags=["shop:{self.name}"])
        async def price(self, item: str) -> str:
            return f"{self.name} {item} {len(self.name)}"

    a, b = Shop("a"), Shop("bb")
    assert [await a.price("x"), await b.price("x")] == ["a x 1", "bb x 2"]
    await cache.invalidate_tags("shop:a")
    assert cache.get_nowait("a/x", None) is None
    assert cache.get_nowait("bb/x") == "bb x 2"
    await b.price("x")
    assert cache.statistics().loads == 2


async def test_what_is_bound_has_the_verbs_of_the_rest_of_its_arguments(cache):
    class Shop:
        loads = 0

        def __init__(self, name: str) -> None:
            self.name = name

        @cached(cache, key="{self.name}/{item}")
        async def price(self, item: str, *, trace: str = "") -> int:
            """Ask for it."""
            Shop.loads += 1
            return Shop.loads

        @classmethod
        @cached(cache, key="all:{n}")
        async def of_all(cls, n: int) -> int:
            return n

        @staticmethod
        @cached(cache, key="static:{n}")
        async def static(n: int) -> int:
            return n

    a, b = Shop("a"), Shop("b")
    assert [await a.price("x"), await a.price(item="x", trace="1"), await b.price("x")] == [1, 1, 2]
    assert a.price.key("x") == Shop.price.key(a, "x") == "a/x"
    await a.price.invalidate("x")
    assert [await a.price("x"), await b.price("x")] == [3, 2]
    assert await b.price.fresh("x", trace="2") == 4
    await Shop.price.invalidate(b, "x")
    assert [await Shop.price(a, "x"), await b.price("x")] == [3, 5]
    untyped: Any = Shop  # of the two in one, type checkers lose sight
    assert [await untyped.of_all(1), await untyped("c").of_all(1)] == [1, 1]
    assert await Shop.static(2) == 2
    bound: Any = a.price
    unbound: Any = Shop.price
    assert inspect.iscoroutinefunction(bound)
    assert inspect.iscoroutinefunction(unbound)
    assert (unbound.__name__, unbound.__doc__, bound.__name__) == ("price", "Ask for it.", "price")
    assert list(inspect.signature(a.price).parameters) == ["item", "trace"]
    assert list(inspect.signature(Shop.price).parameters) == ["self", "item", "trace"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = bound.nothing


SHOPS: Cache[str, object] = Cache("shops", ttl=60)


class Stand:
    """At module level, for only what is there can be pickled."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached(SHOPS, key="{self.name}/{item}")
    async def price(self, item: str) -> str:
        """Ask for it."""
        return f"{self.name} {item}"


class Borrower:
    name = "borrower"
    price = Stand("lender").price


@cached(SHOPS, key="{item}")
async def price_of(item: str) -> str:
    return item


async def test_what_is_bound_is_as_a_bound_method_is(cache):
    a, b = Stand("a"), Stand("b")
    borrower: Any = Borrower()
    assert await borrower.price("x") == "lender x", "it is not bound again"
    assert a.price == a.price
    assert len({a.price, a.price, b.price, Stand.price, Stand.price}) == 3
    assert a.price not in {b.price, Stand.price, None}
    bound: Any = a.price
    assert (bound.__doc__, bound.__module__) == ("Ask for it.", __name__)
    for function in (price_of, Stand.price):
        assert pickle.loads(pickle.dumps(function)) is function
        assert copy.deepcopy(function) is function
    there = pickle.loads(pickle.dumps(a.price))
    assert await there("x") == "a x"
    assert there.key("x") == "a/x"
    assert await copy.deepcopy(b.price)("x") == "b x"
    as_class_methods_do = MethodType(Stand.price, a)  # from Python 3.13 on
    assert await as_class_methods_do("y") == "a y"


async def test_a_call_that_would_be_refused_has_no_key(cache):
    """To invalidate what there cannot be would be to invalidate nothing, without a sign."""

    @cached(cache, key="two:{a}")
    async def load(a: int, b: int = 0) -> int:
        return a

    class Shop:
        @cached(cache, key="{item}")
        async def price(self, item: str) -> str:
            return item

    one: Any = price_of
    two: Any = load
    unbound: Any = Shop.price
    bound: Any = Shop().price
    for verb in ("key", "invalidate", "fresh"):
        for function, args, named in (
            (one, (), {}),
            (one, (), {"items": "x"}),
            (one, ("x", "y"), {}),
            (two, (), {"b": 1}),
            (two, (1,), {"a": 1}),
            (unbound, ("x",), {}),
            (bound, (), {}),
        ):
            with pytest.raises(TypeError, match="argument"):
                made = getattr(function, verb)(*args, **named)
                await made


async def test_a_function_of_one_parameter_is_called_by_name_and_by_default(cache):
    @cached(cache, key="one:{user_id}")
    async def load(user_id: int = 7) -> int:
        return user_id

    @cached(cache, key="two:{n}")
    async def positional(n: int, /) -> int:
        return n

    @cached(cache, key="three:{n}")
    async def named(*, n: int) -> int:
        return n

    @cached(cache, key="four:{entry}")
    async def same(entry: int) -> int:  # as something in the wrapper is called
        return entry

    for _ in range(3):
        assert [await load(), await load(7), await load(user_id=7), await load(8)] == [7, 7, 7, 8]
        assert [await positional(1), await named(n=2)] == [1, 2]
        assert [await same(3), await same(entry=3), await same(4)] == [3, 3, 4]
    assert cache.statistics().loads == 6
    untyped: Any = load
    with pytest.raises(TypeError, match="unexpected keyword argument 'n'"):
        await untyped(n=1)
    with pytest.raises(TypeError):
        await untyped(1, 2)
    untyped = positional
    with pytest.raises(TypeError, match="n"):
        await untyped()


async def test_an_attribute_that_is_not_there_is_an_error_that_names_the_template(cache):
    @cached(cache, key="{user.name}", tags=["{user.team}"])
    async def load(user: object) -> int:
        return 1

    with pytest.raises(ValueError, match=r"key '{user.name}' does not fit the arguments"):
        await load(7)


async def test_a_tagged_value_is_given_until_its_tag_is_invalidated(cache):
    calls = []

    @cached(cache, key="k:{n}", tags=["t:{n}"])
    async def load(n: int) -> int:
        calls.append(n)
        return len(calls)

    @cached(cache, key="k:{n}")
    async def untagged(n: int) -> int:
        return 0

    assert [await untagged(1), await untagged(1)] == [0, 0]
    assert [await load.fresh(1), await load(1), await untagged(1)] == [1, 1, 1]
    await cache.invalidate_tags("t:1")
    assert await untagged(1) == 0, "a short cut knows of tags that came later"
    await cache.invalidate("k:1")
    assert [await load(1), await load(1)] == [2, 2]
    await cache.invalidate_tags("t:1")
    assert [await load(1), await load(1)] == [3, 3]


async def test_copies_and_errors_are_as_those_of_the_cache():
    cache: Cache[str, list[int]] = Cache("copies", ttl=60, copy=list)

    @cached(cache, key="l:{n}")
    async def numbers(n: int) -> list[int]:
        if n < 0:
            raise OSError("negative")
        await sleep(0)
        return [n]

    (await numbers(1)).append(2)
    (await numbers(1)).append(3)
    assert await numbers(1) == [1]
    with pytest.raises(OSError, match="negative"):
        await numbers(-1)


@pytest.mark.promise("cache-bad-input")
def test_what_does_not_fit_is_refused_when_it_is_decorated(cache):
    untyped: Any = cached

    async def load(n: int) -> int:
        return n

    with pytest.raises(TypeError, match="cache must be a Cache, not 'users'"):
        untyped("users", key="k")
    with pytest.raises(TypeError, match="key must be a function, not 5"):
        untyped(cache, key=5)
    with pytest.raises(ValueError, match="key names 'm', which is no parameter"):
        cached(cache, key="{m}")(load)
    with pytest.raises(ValueError, match="tag names 'm'"):
        cached(cache, key="{n}", tags=["{m}"])(load)
    with pytest.raises(TypeError, match="tags must be several texts"):
        cached(cache, key="{n}", tags="tag")(load)
    with pytest.raises(TypeError, match="must be an async function, not the plain function"):
        cached(cache, key="{n}")(test_what_does_not_fit_is_refused_when_it_is_decorated)
    kinds: tuple[Any, ...] = (staticmethod, classmethod)
    for kind in kinds:
        with pytest.raises(TypeError, match="@cached goes below @staticmethod and"):
            untyped(cache, key="{n}")(kind(load))
