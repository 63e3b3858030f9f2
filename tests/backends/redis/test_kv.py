from __future__ import annotations

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.records import DELETE, Change
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError

pytestmark = [pytest.mark.real, pytest.mark.leaves("ap:kv:*")]


@pytest.fixture
async def backend(redis_url):
    async with open_backend(redis_url) as opened:
        yield opened


@pytest.fixture
def wire(redis_url):
    with Wire(redis_url) as connection:
        yield connection


async def test_keys_are_plain_strings_with_their_own_life(backend, wire):
    kv = backend.kv
    await kv.set("é:1", b"\x00\xff")
    await kv.set("short", b"1", ttl=0.0001)
    await kv.set_many({"a": b"1", "b": b"2"}, ttl=50.0005)
    assert wire.call("PTTL", "ap:kv:é:1") == -1
    assert 50_000 - 1_000 < wire.call("PTTL", "ap:kv:a") <= 50_001
    assert 50_000 - 1_000 < wire.call("PTTL", "ap:kv:b") <= 50_001
    assert list((await kv.get_many(["b", "x", "a"])).items()) == [("b", b"2"), ("a", b"1")]
    assert await kv.get("é:1") == b"\x00\xff"
    assert await kv.delete("é:1", "x", "a") == 2
    await kv.set("b", b"3")
    assert wire.call("PTTL", "ap:kv:b") == -1


async def test_counting_gives_a_life_only_to_a_new_key(backend, wire):
    kv = backend.kv
    assert await kv.incr("n", 2, ttl=100) == 2
    assert wire.call("PTTL", "ap:kv:n") > 99_000
    assert await kv.incr("n", ttl=900) == 3
    assert wire.call("PTTL", "ap:kv:n") <= 100_000
    assert await kv.incr("for ever", -3) == -3
    assert wire.call("PTTL", "ap:kv:for ever") == -1
    assert await kv.incr("for ever", ttl=9) == -2
    assert wire.call("PTTL", "ap:kv:for ever") == -1


async def test_counting_is_exact_to_64_bits_and_no_further(backend):
    kv = backend.kv
    assert await kv.incr("n", 2**63 - 2) == 2**63 - 2
    assert await kv.incr("n") == 2**63 - 1
    with pytest.raises(ValueError, match="key 'n' holds no whole number of at most 64 bits, or"):
        await kv.incr("n")
    await kv.set("n", b"x")
    with pytest.raises(ValueError, match="key 'n' holds no whole number"):
        await kv.incr("n")


async def test_changes_say_what_they_expect_tell_and_how_long_they_are_good_for(backend, wire):
    kv = backend.kv
    async with backend.pubsub.subscribe("changes") as notices:
        now = await backend.time()
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
    assert 49_000 < wire.call("PTTL", "ap:kv:c") <= 50_000
    assert await kv.change_many([Change("a", DELETE, b"1"), Change("x", DELETE)]) == [True, True]


async def test_what_the_server_refuses_is_an_error_of_the_backend(backend, wire):
    wire.call("RPUSH", "ap:kv:list", "a")
    wire.call("PEXPIRE", "ap:kv:list", 60_000)
    with pytest.raises(BackendError, match="WRONGTYPE"):
        await backend.kv.incr("list")
    with pytest.raises(BackendError, match="WRONGTYPE"):
        await backend.kv.get("list")


async def test_compare_and_set_gives_the_new_value_its_own_life(backend, wire):
    kv = backend.kv
    assert await kv.compare_and_set("a", None, b"1", ttl=50)
    assert 49_000 < wire.call("PTTL", "ap:kv:a") <= 50_000
    assert await kv.compare_and_set("a", b"1", b"")
    assert wire.call("PTTL", "ap:kv:a") == -1
    assert not await kv.compare_and_set("a", None, b"2")
    assert not await kv.compare_and_set("a", b"1", b"2")
    assert await kv.compare_and_set("a", b"", DELETE)
    assert not await kv.compare_and_set("a", b"", b"2")
    assert await kv.compare_and_set("a", None, DELETE)


async def test_compare_and_set_tells_who_listens(backend):
    async with backend.pubsub.subscribe("changes") as notices:
        await backend.kv.compare_and_set("é", None, b"1", notify="changes")
        await backend.kv.compare_and_set("é", None, b"1", notify="changes")
        await backend.kv.compare_and_set("é", b"1", DELETE, notify="changes")
        await backend.pubsub.publish("changes", b"end")
        assert [(await anext(notices)).data for _ in range(3)] == ["é".encode()] * 2 + [b"end"]


@pytest.mark.promise("backends-round-trips")
async def test_every_call_is_one_round_trip(backend):
    kv = backend.kv
    await kv.incr("n")
    await kv.compare_and_set("n", b"1", b"2")  # the scripts are known now
    for call in (
        lambda: kv.get("a"),
        lambda: kv.get_many(["a", "b", "c"]),
        lambda: kv.set("a", b"1"),
        lambda: kv.set_many({f"{number}": b"" for number in range(100)}),
        lambda: kv.change_many([Change("a", b"1"), Change("b", b"2", None)]),
        lambda: kv.delete("a", "b"),
        lambda: kv.incr("n", ttl=5),
        lambda: kv.compare_and_set("n", b"3", b"2", ttl=5, notify="c"),
        lambda: kv.scan("n"),
    ):
        before = backend.statistics().round_trips
        await call()
        assert backend.statistics().round_trips == before + 1
    before = backend.statistics().round_trips
    assert await kv.get_many([]) == {}
    assert await kv.delete() == 0
    await kv.set_many({})
    assert await kv.change_many([]) == []
    assert backend.statistics().round_trips == before


async def test_a_lost_answer_repeats_reads_alone(fault_proxy):
    async with fault_proxy as proxy, open_backend(proxy.url) as backend:
        kv = backend.kv
        await kv.incr("a")
        await kv.compare_and_set("a", b"1", b"0")  # the server knows the scripts now
        for call in (
            lambda: kv.set("a", b"2"),
            lambda: kv.set_many({"a": b"3"}),
            lambda: kv.incr("n"),
            lambda: kv.compare_and_set("b", None, b"1"),
            lambda: kv.delete("b"),
        ):
            proxy.drop_replies(matching=b"ap:")
            with pytest.raises(BackendUnavailableError):
                await call()
        proxy.drop_replies(matching=b"ap:")
        assert await kv.get("a") == b"3"
        proxy.drop_replies(matching=b"ap:")
        assert await kv.get_many(["n", "b"]) == {"n": b"1"}  # each has happened, and once


async def test_a_cluster_is_asked_key_by_key(backend, monkeypatch):
    kv = backend.kv
    await kv.set_many({"a": b"1", "b": b"2"})
    monkeypatch.setattr(backend.client, "cluster", True)
    assert await kv.get_many(["a", "x", "b"]) == {"a": b"1", "b": b"2"}
    assert await kv.delete("a", "x", "b") == 2


async def test_bad_input_is_refused(backend):
    kv = backend.kv
    for call, message in (
        (lambda: kv.get(""), "key must be a non-empty string"),
        (lambda: kv.get_many("ab"), "keys must be a collection of strings"),
        (lambda: kv.set("a", "b"), "value must be bytes, not str"),
        (lambda: kv.set("a", b"", ttl=0), "ttl must be a finite number > 0, not 0"),
        (lambda: kv.set_many({"": b""}), "keys of values must be a non-empty string"),
        (lambda: kv.set_many({"a": 1}), "values must be bytes, not int"),
        (lambda: kv.delete(""), "keys must be a non-empty string"),
        (lambda: kv.incr("a", 1.5), "by must be a whole number"),
        (lambda: kv.incr("a", ttl=0), "ttl must be"),
        (lambda: kv.compare_and_set("a", "b", b""), "expected must be bytes"),
        (lambda: kv.compare_and_set("a", b"", None), "value must be bytes, not NoneType"),
        (lambda: kv.compare_and_set("a", b"", b"", ttl=0), "ttl must be"),
        (lambda: kv.compare_and_set("a", b"", b"", notify=""), "notify must be"),
        (lambda: kv.scan(""), "prefix must be"),
        (lambda: kv.scan("a", limit=0), "limit must be a whole number >= 1"),
        (lambda: kv.scan("a", cursor="x"), "cursor must be that of the page before, not 'x'"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            await call()


async def test_a_closed_backend_is_told_so(redis_url):
    kv = open_backend(redis_url).kv
    for call in (
        kv.get("a"),
        kv.get_many([]),
        kv.set("a", b""),
        kv.set_many({}),
        kv.delete(),
        kv.incr("a"),
        kv.compare_and_set("a", None, b""),
        kv.scan("a"),
    ):
        with pytest.raises(ClosedError, match="is not open"):
            await call
