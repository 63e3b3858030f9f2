from __future__ import annotations

import pytest

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.backends.records import DELETE, Change, Notice
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import ClosedError
from aiopatterns.testing import simulate


async def test_values_are_read_as_they_were_written():
    async with MemoryBackend() as backend:
        kv = backend.kv
        await kv.set("a", b"1")
        await kv.set_many({"b": b"2", "c": b""})
        assert await kv.get("a") == b"1"
        assert list((await kv.get_many(["c", "x", "a"])).items()) == [("c", b""), ("a", b"1")]
        assert await kv.get_many([]) == {}
        assert await kv.delete("a", "x", "b") == 2
        assert await kv.delete() == 0
        assert await kv.get("a") is None


def test_lives_end_and_a_new_value_has_a_new_one():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            kv = backend.kv
            await kv.set("a", b"1", ttl=5)
            await kv.set_many({"b": b"1", "c": b"1"}, ttl=5)
            await kv.set("c", b"2")
            await sleep(5)
            assert await kv.get_many(["a", "b", "c"]) == {"c": b"2"}

    simulate(scenario)


def test_counting_gives_a_life_only_to_a_new_key():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            kv = backend.kv
            assert await kv.incr("n", ttl=5) == 1
            await sleep(3)
            assert await kv.incr("n", 4, ttl=100) == 5
            assert await kv.get("n") == b"5"
            await sleep(2)
            assert await kv.incr("n", -2) == -2
            await sleep(1e6)
            assert await kv.get("n") == b"-2"

    simulate(scenario)


@pytest.mark.parametrize(
    "stored", [b"", b"x", b"1.0", b"+1", b"01", b"-0", b" 1", b"1\n", b"9223372036854775808"]
)
async def test_only_whole_numbers_are_counted(stored):
    async with MemoryBackend() as backend:
        await backend.kv.set("n", stored)
        with pytest.raises(ValueError, match="key 'n' holds no whole number of at most 64 bits"):
            await backend.kv.incr("n")
        assert await backend.kv.get("n") == stored


async def test_a_sum_beyond_64_bits_is_refused():
    async with MemoryBackend() as backend:
        kv = backend.kv
        assert await kv.incr("n", 2**63 - 1) == 2**63 - 1
        with pytest.raises(ValueError, match="the number under key 'n' would leave 64 bits"):
            await kv.incr("n")
        assert await kv.incr("m", -(2**63)) == -(2**63)
        with pytest.raises(ValueError, match="would leave 64 bits"):
            await kv.incr("m", -1)


async def test_compare_and_set_writes_only_what_was_expected():
    async with MemoryBackend() as backend:
        kv = backend.kv
        assert await kv.compare_and_set("a", None, b"1")
        assert not await kv.compare_and_set("a", None, b"2")
        assert not await kv.compare_and_set("a", b"2", b"3")
        assert await kv.compare_and_set("a", b"1", b"3")
        assert await kv.compare_and_set("a", b"3", DELETE)
        assert await kv.get("a") is None
        assert await kv.compare_and_set("a", None, DELETE)


async def test_compare_and_set_tells_who_listens():
    async with (
        MemoryBackend() as backend,
        backend.pubsub.subscribe("changes", capacity=10) as notices,
    ):
        await backend.kv.compare_and_set("é", None, b"1", notify="changes")
        await backend.kv.compare_and_set("é", None, b"1", notify="changes")
        await backend.kv.compare_and_set("é", b"1", DELETE, notify="changes")
        await backend.pubsub.publish("changes", b"end")
        told = [await anext(notices) for _ in range(3)]
        key = Notice("changes", "é".encode())
        assert told == [key, key, Notice("changes", b"end")]


async def test_changes_say_what_they_expect_tell_and_how_long_they_are_good_for():
    async with MemoryBackend() as backend, backend.pubsub.subscribe("changes") as notices:
        kv, now = backend.kv, await backend.time()
        changes = [
            Change("a", b"1", notify="changes", notice=b"a is new"),
            Change("b", b"1", b"2", notify="changes"),
            Change("c", b"1", None, ttl=50, notify="changes", before=now + 50),
            Change("d", b"1", before=now),
        ]
        assert await kv.change_many(changes) == [True, False, True, False]
        await backend.pubsub.publish("changes", b"end")
        assert [(await anext(notices)).data for _ in range(3)] == [b"a is new", b"c", b"end"]
        assert await kv.get_many(["a", "b", "c", "d"]) == {"a": b"1", "c": b"1"}
        assert await kv.change_many([Change("a", DELETE, b"1"), Change("x", DELETE)]) == [
            True,
            True,
        ]


def calls(kv):
    return [
        (lambda: kv.get(""), "key must be a non-empty string"),
        (lambda: kv.get_many("ab"), "keys must be a collection of strings"),
        (lambda: kv.get_many([1]), "keys must be a non-empty string, not 1"),
        (lambda: kv.set("a", "b"), "value must be bytes, not str"),
        (lambda: kv.set("a", b"", ttl=0), "ttl must be a finite number > 0, not 0"),
        (lambda: kv.set_many({"": b""}), "keys of values must be a non-empty string"),
        (lambda: kv.set_many({"a": 1}), "values must be bytes, not int"),
        (lambda: kv.set_many({"a": b""}, ttl=-1), "ttl must be"),
        (lambda: kv.delete(""), "keys must be a non-empty string"),
        (lambda: kv.incr("a", 1.5), "by must be a whole number"),
        (lambda: kv.incr("a", 2**63), "by must be a whole number of at most 64 bits"),
        (lambda: kv.incr("a", ttl=0), "ttl must be"),
        (lambda: kv.compare_and_set("a", "b", b""), "expected must be bytes"),
        (lambda: kv.compare_and_set("a", b"", None), "value must be bytes, not NoneType"),
        (lambda: kv.compare_and_set("a", b"", b"", ttl=0), "ttl must be"),
        (lambda: kv.compare_and_set("a", b"", b"", notify=""), "notify must be"),
        (lambda: kv.scan(""), "prefix must be"),
        (lambda: kv.scan("a", cursor=""), "cursor must be"),
        (lambda: kv.scan("a", limit=10_001), "limit must be a whole number <= 10000, not 10001"),
    ]


async def test_a_scan_goes_on_behind_a_key_that_is_gone():
    async with MemoryBackend() as backend:
        kv = backend.kv
        await kv.set_many(dict.fromkeys(["a1", "a2", "a3", "b"], b""))
        assert await kv.scan("a", limit=2) == (["a1", "a2"], "a2")
        await kv.delete("a2")
        assert await kv.scan("a", cursor="a2", limit=2) == (["a3"], None)
        assert await kv.scan("b", limit=1) == (["b"], "b")
        assert await kv.scan("b", cursor="b", limit=1) == ([], None)


async def test_bad_input_is_refused():
    async with MemoryBackend() as backend:
        for call, message in calls(backend.kv):
            with pytest.raises((ValueError, TypeError), match=message):
                await call()


async def test_a_closed_backend_is_told_so():
    kv = MemoryBackend().kv
    for call in (
        kv.get("a"),
        kv.get_many([]),
        kv.set("a", b""),
        kv.set_many({}),
        kv.delete(),
        kv.incr("a"),
        kv.compare_and_set("a", None, b""),
        kv.change_many([]),
        kv.scan("a"),
    ):
        with pytest.raises(ClosedError, match="memory:// is not open"):
            await call
