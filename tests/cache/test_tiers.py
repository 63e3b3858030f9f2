"""The far tier: what it knows, what it takes, and what it refuses."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import create_task_group
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.cache.aside import Cache
from aiopatterns.cache.envelope import is_tombstone
from aiopatterns.cache.farnames import GRACE, LONGEST
from aiopatterns.cache.fetched import Filled, Seen
from aiopatterns.cache.invalidation import KEYS, Item
from aiopatterns.cache.terms import MISSING, Life
from aiopatterns.cache.tiers import NEAR_LIFE
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.errors import BackendUnavailableError, CodecError
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, simulate
from tests.cache.shaky import Shaky, tier


@asynccontextmanager
async def fars(count=1, *, codec=JSON, **network):
    """Processes that share one server."""
    server = MemoryBackend()
    made = [tier(Shaky(server, **network), codec=codec) for _ in range(count)]
    async with create_task_group() as tasks:
        for far in made:
            await tasks.start(far.run)
            far._backend.calls.clear()
        yield made
        tasks.cancel_scope.cancel()


def lasting(seconds=60.0, stale=0.0):
    now = monotonic()
    return Life(now + seconds, now + seconds + stale)


async def seen(far, key, tags=()):
    return (await far.read([key], tags))[key].seen


async def stored(far, key, value, *, life=None, tags=(), cost=0.0):
    life = life or lasting()
    return await far.fill(key, await seen(far, key, tags), value, life, cost=cost, tags=tags)


async def test_what_was_filled_is_known_to_all():
    async with fars(2) as (here, there):
        life = lasting(9, 9)
        assert (
            await stored(here, "k", {"v": [1, None]}, life=life, tags=["t"], cost=0.25) == "stored"
        )
        found = (await there.read(["k", "absent"]))["k"]
        assert found.known
        assert found.value == {"v": [1, None]}
        assert found.cost == 0.25
        assert list(found.tags) == ["t"]
        for was, now in zip(life, found.life, strict=True):
            assert was - 0.5 < now <= was + 1e-6
        absent = (await there.read(["absent"]))["absent"]
        assert not absent.known
        assert absent.seen.raw is None


async def test_values_of_all_kinds():
    async with fars(2, codec=MSGPACK) as (here, there):
        for key, value in {"none": None, 7: 0, b"\xff": "", "absent": MISSING}.items():
            assert await stored(here, key, value) == "stored"
            found = (await there.read([key]))[key]
            assert found.known
            assert found.value == value or found.value is value


async def test_one_command_reads_a_batch():
    async with fars() as [far]:
        await far.read(["first"], ["t", "u"])
        far._backend.calls.clear()
        fetched = await far.read(range(100), ["t", "u"])
        assert far._backend.calls == ["get_many"]
        fills = [Filled(key, fetched[key].seen, key, lasting(), 0.0, ["t"]) for key in range(30)]
        assert await far.fill_many(fills) == ["stored"] * 30
        assert far._backend.calls == ["get_many", "change_many"]
        found = await far.read(range(100))
        assert sum(each.known for each in found.values()) == 30
        assert await far.fill_many([]) == []


@pytest.mark.promise("cache-no-stale-fill")
async def test_a_fill_is_refused_after_an_invalidation():
    async with fars(2) as (here, there):
        before = await seen(here, "k")
        await there.invalidate(["k"])
        assert await here.fill("k", before, "old", lasting()) == "refused"
        after = await seen(here, "k")
        assert is_tombstone(after.raw)
        assert await here.fill("k", after, "new", lasting()) == "stored"
        # Two invalidations differ, and so do a value and the same value again.
        before = await seen(here, "k")
        await there.invalidate(["k"])
        between = await seen(here, "k")
        await there.invalidate(["k"])
        for old in (before, between):
            assert await here.fill("k", old, "old", lasting()) == "refused"
        again = await seen(here, "k")
        assert await there.fill("k", again, "v", lasting()) == "stored"
        assert await here.fill("k", again, "v", lasting()) == "refused"


@pytest.mark.promise("cache-no-stale-fill")
def test_a_fill_that_comes_after_the_tombstone_is_over_is_too_late():
    async def scenario():
        async with fars(2) as (here, there):
            before = await seen(here, "k")
            await there.invalidate(["k"])
            await sleep(GRACE + 0.1)
            assert (await seen(there, "k")).raw is None
            assert await here.fill("k", before, "old", lasting()) == "skipped"
            # Also one that was sent in time and lay in a socket until now: the server says no.
            before = await seen(here, "k")
            change = here._change(Filled("k", before, "old", lasting(999)))
            await there.invalidate(["k"])
            await sleep(GRACE + 0.1)
            assert await here._backend.kv.change_many([change]) == [False]

    simulate(scenario)


@pytest.mark.promise("cache-no-stale-fill")
@pytest.mark.parametrize("how", ["fill", "put"])
def test_a_short_life_does_not_end_what_a_tombstone_says(how):
    """What takes its place is over soon, and then the key must not look as it did before."""

    async def scenario():
        async with fars(2) as (here, there):
            slow = await seen(here, "k")
            await there.invalidate(["k"])
            if how == "fill":
                assert await stored(there, "k", "new", life=lasting(1)) == "stored"
            else:
                await there.put({"k": "new"}, lasting(1))
            await sleep(2)
            assert not (await there.read(["k"]))["k"].known
            assert await here.fill("k", slow, "old", lasting()) == "refused"
            assert await stored(there, "k", "newer", life=lasting(1)) == "stored"
            await sleep(2)
            assert await here.fill("k", slow, "old", lasting()) == "refused"
            await sleep(GRACE)
            assert (await there.read(["k"]))["k"].seen.raw is None

    simulate(scenario)


@pytest.mark.promise("cache-no-stale-fill")
def test_a_value_that_was_held_up_on_its_way_is_not_written():
    async def scenario():
        async with fars(2) as (here, there):
            await seen(here, "k")
            held = []

            async def change_many(changes):
                held.extend(changes)
                raise BackendUnavailableError("no answer")

            here._backend.kv.change_many = change_many
            await here.put({"k": "old"}, lasting())
            assert here._outbox.owed.due == 1
            del here._backend.kv.change_many
            await there.invalidate(["k"])
            await sleep(3)
            assert not here._outbox.owed
            assert await there._backend.kv.change_many(held) == [False]
            assert not (await there.read(["k"]))["k"].known

    simulate(scenario)


@pytest.mark.parametrize("how", ["tag", "other tag", "clear"])
async def test_versions_make_many_keys_invalid(how):
    async with fars(2) as (here, there):
        for key in range(10):
            await stored(here, key, key, tags=["t", "u"])
        await stored(here, "untagged", 1)
        before = await seen(here, "late", ["t", "u"])
        if how == "clear":
            await there.clear()
        else:
            await there.invalidate_tags(["t" if how == "tag" else "u"])
        assert await here.fill("late", before, "old", lasting(), tags=["t", "u"]) == "stored"
        found = await there.read([*range(10), "late"], ["t"])
        assert not any(each.known for each in found.values())
        assert (await there.read(["untagged"]))["untagged"].known == (how != "clear")
        assert await stored(there, 1, "new", tags=["t", "u"]) == "stored"
        assert (await here.read([1]))[1].value == "new"


async def test_a_lost_version_makes_invalid():
    async with fars() as [far]:
        await stored(far, "k", 1, tags=["t"])
        await far._backend.server.kv.delete("cache:n:v:t")
        assert not (await far.read(["k"]))["k"].known
        assert not (await far.read(["k"], ["t"]))["k"].known
        await stored(far, "k", 1, tags=["t"])
        assert (await far.read(["k"]))["k"].known


async def test_a_fill_with_tags_that_were_not_read_is_skipped():
    async with fars() as [far]:
        assert await far.fill("k", await seen(far, "k"), 1, lasting(), tags=["t"]) == "skipped"


def test_lives():
    async def scenario():
        async with fars(2) as (here, there):
            await stored(here, "fresh", 1, life=lasting(5))
            await stored(here, "stale", 1, life=lasting(5, 5))
            await stored(here, "ever", 1, life=Life(math.inf, math.inf))
            assert await stored(here, "over", 1, life=lasting(-1)) == "skipped"
            await sleep(6)
            found = await there.read(["fresh", "stale", "ever"])
            assert [each.known for each in found.values()] == [False, True, True]
            assert found["stale"].life.fresh_until < monotonic() < found["stale"].life.stale_until
            assert found["ever"].life == (math.inf, math.inf)
            assert found["fresh"].seen.raw is None
            # Nobody leaves anything behind for ever.
            ever = Filled("ever", await seen(here, "ever"), 1, Life(math.inf, math.inf))
            assert here._change(ever).ttl == LONGEST

    simulate(scenario)


def test_nothing_is_trusted_near_for_long():
    async def scenario():
        async with fars() as [far]:
            now = monotonic()
            assert far.near(Life(now + 5, now + 9)) == (now + 5, now + 9)
            assert far.near(Life(now + 999, now + 1_009)) == (now + NEAR_LIFE, now + NEAR_LIFE + 10)
            assert far.near(Life(math.inf, math.inf)) == (now + NEAR_LIFE, now + NEAR_LIFE)
            far._gate.lost("gone")
            assert far.near(Life(now + 5, now + 9)) == (now + 1, now + 5)

    simulate(scenario)


async def test_put_overwrites_and_tells():
    async with fars(2) as (here, there):
        await stored(there, "k", "old")
        before = await seen(there, "k")
        await here.put({"k": "new", "l": None}, lasting(), tags=["t"])
        found = await there.read(["k", "l"])
        assert [each.value for each in found.values()] == ["new", None]
        await sleep(0.01)
        assert there._keeper._news._local.told[-2:] == [["k"], ["l"]]
        assert await there.fill("k", before, "old", lasting()) == "refused"
        await there.invalidate_tags(["t"])
        assert not (await here.read(["k"]))["k"].known
        assert not here._outbox.owed


async def test_what_cannot_be_encoded_is_not_stored_and_told():
    async with fars(2) as (here, there):
        await here.put({"k": "old", "l": "old"}, lasting())
        with capture_events() as events:
            assert await stored(here, "m", object()) == "skipped"
            await here.put({"k": "new", "l": object()}, lasting())
        failed: list[Any] = [each for each in events if each.name.endswith("not_encoded")]
        assert [each.key for each in failed] == ["m", "l"]
        assert isinstance(failed[0].error, CodecError)
        found = await there.read(["k", "l"])
        assert not any(each.known for each in found.values())
        await here.put({"k": object()}, lasting())  # nobody listens
        assert not here._outbox.owed


async def test_what_cannot_be_decoded_is_a_miss_and_overwritten():
    backend = MemoryBackend()
    texts = tier(backend)
    numbers = tier(backend, type=int)
    others = tier(backend, codec=MSGPACK)
    async with create_task_group() as tasks:
        for far in (texts, numbers, others):
            await tasks.start(far.run)
        await stored(texts, "k", "text")
        for far in (numbers, others):
            assert not (await far.read(["k"]))["k"].known
        assert await stored(numbers, "k", 7) == "stored"
        assert (await texts.read(["k"]))["k"].value == 7
        tasks.cancel_scope.cancel()


@pytest.mark.promise("cache-any-bytes")
@given(st.binary(max_size=80), st.integers(0, 3))
def test_any_bytes_in_the_server_are_a_miss(raw, prefix):
    async def scenario():
        async with fars() as [far]:
            junk = (b"", b"V\x01", b"T\x01", b"V\x02")[prefix] + raw
            await far._backend.server.kv.set("cache:n:k:sk", junk)
            assert not (await far.read(["k"]))["k"].known
            assert await stored(far, "k", "good") == "stored"
            assert (await far.read(["k"]))["k"].value == "good"

    simulate(scenario)


def test_a_turn_is_answered_by_another_process():
    async def scenario():
        async with fars(3, delay=0.001) as (here, there, third):
            loads = []

            async def get(far):
                fetched = (await far.read(["k"]))["k"]
                turn = await far.lead("k", fetched)
                if not turn.answered:
                    loads.append(far)
                    await sleep(2)
                    assert await far.fill("k", turn.fetched.seen, 1, lasting()) == "stored"
                far.finish(turn)
                return turn.fetched

            async with create_task_group() as tasks:
                for far in (here, there, third):
                    tasks.start_soon(get, far)
            assert len(loads) == 1

    simulate(scenario)


def test_who_comes_after_an_invalidation_does_not_wait_for_who_came_before():
    async def scenario():
        async with fars(2, delay=0.001) as (here, there):
            old = await here.lead("k", (await here.read(["k"]))["k"])
            assert not old.answered
            waiting = []

            async def wait():
                waiting.append(await there.lead("k", fetched))

            fetched = (await there.read(["k"]))["k"]
            async with create_task_group() as tasks:
                tasks.start_soon(wait)
                await sleep(1)
                began = monotonic()
                await here.invalidate(["k"])
                new = await here.lead("k", (await here.read(["k"]))["k"])
                assert monotonic() - began < 0.1
                assert not new.answered
                assert await here.fill("k", new.fetched.seen, "new", lasting()) == "stored"
                here.finish(new)
            assert waiting[0].answered
            assert waiting[0].fetched.value == "new"
            here.finish(old)

    simulate(scenario)


def test_a_stale_value_is_no_answer():
    async def scenario():
        async with fars(2) as (here, there):
            await stored(here, "k", "old", life=lasting(1, 99))
            await sleep(2)
            fetched = (await there.read(["k"]))["k"]
            turn = await there.lead("k", fetched)
            assert turn.fetched.known
            assert not turn.answered
            there.finish(turn)

    simulate(scenario)


@pytest.mark.promise("cache-never-an-error")
def test_an_outage_is_no_error():
    async def scenario():
        async with fars() as [far]:
            await stored(far, "k", 1)
            far._backend.hangs = True
            began = monotonic()
            found = (await far.read(["k"]))["k"]
            assert monotonic() - began == pytest.approx(0.25)
            assert not found.known
            assert not far.up
            turn = await far.lead("k", found)
            assert not turn.answered
            assert await far.fill("k", turn.fetched.seen, 1, lasting()) == "skipped"
            assert await far.fill_many([Filled("k", Seen(None, 0, {}), 1, lasting())]) == [
                "skipped"
            ]
            far.finish(turn)
            await far.put({"p": 1}, lasting())
            await far.invalidate(["k"])
            await far.invalidate_tags(["t"])
            with pytest.raises(BackendUnavailableError, match="'n' could not tell"):
                await far.invalidate(["l"], strict=True)
            assert monotonic() - began == pytest.approx(0.25)
            assert len(far._outbox.owed) == 4
            far._backend.hangs = False
            await sleep(3)
            assert far.up
            assert not far._outbox.owed
            found = await far.read(["k", "p"])
            assert all(is_tombstone(each.seen.raw) for each in found.values())

    simulate(scenario)


def test_a_turn_that_is_taken_after_an_invalidation_is_another_one():
    """Who waits for a turn gets it when the key has changed already, but nobody has filled it."""

    async def scenario():
        async with fars(2) as (here, there):
            fetched = (await there.read(["k"]))["k"]
            await here.invalidate(["k"])
            turn = await there.lead("k", fetched)
            assert not turn.answered
            assert is_tombstone(turn.fetched.seen.raw)
            await sleep(2)
            assert await here._backend.server.kv.get(here._names.turn("k", None)) is None
            again = here._names.turn("k", turn.fetched.seen.raw)
            assert await here._backend.server.kv.get(again) is not None
            there.finish(turn)

    simulate(scenario)


async def test_a_refused_fill_is_skipped():
    async with fars() as [far]:
        before = await seen(far, "k")
        far._backend.refuses = True
        assert await far.fill("k", before, 1, lasting()) == "skipped"
        assert far.up


@pytest.mark.parametrize("hangs", [True, False])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_server_that_is_lost_in_the_middle(at, hangs):
    """Reading versions for the first time takes three commands; each may be the last."""

    async def scenario():
        async with fars() as [far]:
            count = 0

            async def way():
                nonlocal count
                count += 1
                if count == 2 * at - 1:
                    await sleep(999 if hangs else 0)
                    raise BackendUnavailableError("gone")

            far._backend.way = way
            found = (await far.read(["k"], ["new"]))["k"]
            assert not found.known
            assert found.seen.versions is None
            await far.put({"k": 1}, lasting())
            assert len(far._outbox.owed) == 1

    simulate(scenario)


async def test_what_is_owed_is_neither_read_nor_filled():
    async with fars() as [far]:
        await stored(far, "k", 1, tags=["t"])
        far._backend.refuses = True
        await far.invalidate_tags(["t"])
        assert far.up
        found = (await far.read(["k"]))["k"]
        assert not found.known
        assert found.seen.versions is not None
        assert (await far.read(["k"], ["t"]))["k"].seen.versions is None
        await far.clear()
        assert (await seen(far, "other")).versions is None
        far._backend.refuses = False
        await far._outbox.tell_again()
        assert (await seen(far, "other")).versions is not None


async def test_what_is_owed_while_a_read_is_under_way():
    async with fars(delay=0.01) as [far]:
        await stored(far, "k", 1)
        got = []

        async def read():
            got.append((await far.read(["k"]))["k"])

        async with create_task_group() as tasks:
            tasks.start_soon(read)
            await sleep(0.001)
            far._outbox.owed.add([Item(KEYS, "k")])
        assert not got[0].known
        assert got[0].seen.versions is None


@pytest.mark.promise("cache-bad-input")
async def test_bad_keys_are_refused():
    far = tier(MemoryBackend())
    with pytest.raises(TypeError, match="str, bytes or int"):
        await far.read([1.5])
    with pytest.raises(TypeError, match="str, bytes or int"):
        await far.put({1.5: 1}, lasting())
    with pytest.raises(TypeError, match="str, bytes or int"):
        await far.invalidate([1.5])
    assert not far._outbox.owed


async def test_a_tier_that_does_not_run_knows_nothing():
    far = tier(MemoryBackend())
    assert not far.up
    fetched = (await far.read(["k"]))["k"]
    assert not fetched.known
    assert await far.fill("k", fetched.seen, 1, lasting()) == "skipped"
    await far.invalidate_matching("k*")
    assert len(far._outbox.owed) == 1


@pytest.mark.parametrize("call", ["read", "fill", "put", "lead", "invalidate"])
def test_cancelled_calls_leave_nothing(call):
    def scenario() -> Trial:
        found = []

        async def work():
            async with fars(2, delay=0.01) as (here, there):
                found.append(here)
                if call == "read":
                    await here.read(["k"], ["t"])
                elif call == "fill":
                    await stored(here, "k", 1)
                elif call == "put":
                    await here.put({"k": 1}, lasting())
                elif call == "lead":
                    turn = await there.lead("k", (await there.read(["k"]))["k"])
                    there.finish(turn)
                    here.finish(await here.lead("k", (await here.read(["k"]))["k"]))
                else:
                    await here.invalidate(["k"])

        def check():
            for far in found:
                assert not far.up
                assert not far._fleet._held

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=5)


async def test_a_codec_that_breaks_shuts_no_key_for_ever():
    class Broken:
        name = "broken"
        breaks = True

        def encode(self, value):
            if self.breaks:
                raise RuntimeError("no codec error")
            return JSON.encode(value)

        def decoder(self, type):
            return JSON.decoder(type)

    codec: Any = Broken()
    async with Cache[str, str]("n", ttl=60, backend="memory://", codec=codec) as cache:
        with pytest.raises(RuntimeError, match="no codec error"):
            await cache.set("k", "v")
        far: Any = cache._far
        assert far._outbox.owed.due == 1
        codec.breaks = False
        await cache.set("k", "w")
        assert len(far._outbox.owed) == 0
        cache.stock.clear()
        assert await cache.get("k") == "w"
