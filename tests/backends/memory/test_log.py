from __future__ import annotations

from typing import Any

import anyio
import pytest

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.backends.records import Entry, GroupTurn
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import ClosedError
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate


async def test_entries_are_read_in_order_behind_an_id():
    async with MemoryBackend() as backend:
        log = backend.log("x")
        assert await log.append_many([]) == []
        ids = await log.append_many([b"a", b"b"])
        ids += await log.append_many((b"c",))
        assert await log.read() == [
            Entry(each, body) for each, body in zip(ids, (b"a", b"b", b"c"), strict=True)
        ]
        assert sorted(ids, key=lambda each: Entry(each, b"").sort_key) == ids
        assert await log.read(after=ids[0], limit=1) == [Entry(ids[1], b"b")]
        assert await log.read(after=ids[2]) == []
        assert await log.length() == 3
        assert await log.trim(max_length=1) == 2
        assert await log.trim(max_length=1) == 0
        assert await log.read() == [Entry(ids[2], b"c")]
        await log.append_many([b"d", b"e"], max_length=2)
        assert [each.payload for each in await log.read()] == [b"d", b"e"]
        assert backend.log("x") is log


def test_a_token_is_known_for_ten_minutes():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            log = backend.log("x")
            ids = await log.append_many([b"a", b"b"], token="t")
            assert await log.append_many([b"a", b"b"], token="t") == ids
            assert await log.append_many([b"a"], token="u") != ids
            await sleep(599)
            assert await log.append_many([b"a", b"b"], token="t") == ids
            assert await log.append_many([], token="t") == []
            await sleep(1)
            assert await log.append_many([b"a"], token="t") != ids
            assert await log.length() == 4

    simulate(scenario)


async def test_groups_begin_where_they_are_told():
    async with MemoryBackend() as backend:
        log = backend.log("x")
        ids = await log.append_many([b"a", b"b"])
        assert await log.create_group("all")
        assert not await log.create_group("all", after="$")
        assert await log.create_group("new", after="$")
        assert await log.create_group("some", after=ids[0])
        assert [await log.lag(each) for each in ("all", "new", "some")] == [2, 0, 1]
        ids += await log.append_many([b"c"])
        turned = await log.turn("new", "c", GroupTurn(limit=5))
        assert [each.payload for each in turned.claimed] == [b"c"]
        assert await log.delete_group("new")
        assert not await log.delete_group("new")
        assert await log.create_group("new", after="$")
        assert await log.held("new", "c") == []


def test_a_group_works_through_the_whole_protocol():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            log = backend.log("x")
            ids = await log.append_many([b"a", b"b"])
            await log.create_group("g")
            await log.turn("g", "c", GroupTurn(limit=2))
            assert [each.id for each in await log.held("g", "c")] == ids
            await log.turn("g", "c", GroupTurn(buried={ids[0]: b"why"}, retries={ids[1]: 5}))
            assert [letter.id for letter, _ in await log.dead("g")] == [ids[0]]
            assert [each.id for each in await log.pending("g")] == [ids[1]]
            assert await log.requeue("g", ids) == 1
            turned = await log.turn("g", "d", GroupTurn(limit=5))
            assert [(each.id, each.deliveries) for each in turned.claimed] == [(ids[0], 1)]

    simulate(scenario)


def test_waiting_ends_with_an_entry_a_retry_or_the_time():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            log = backend.log("x")
            await log.create_group("g")
            assert not await log.wait("g", timeout=0)
            assert not await log.wait("g", timeout=5)
            assert monotonic() == 5
            [entry] = await log.append_many([b"a"])
            assert await log.wait("g", timeout=5)
            await log.turn("g", "c", GroupTurn(limit=1))
            await log.turn("g", "c", GroupTurn(retries={entry: 7}))
            assert not await log.wait("g", timeout=6)
            assert await log.wait("g", timeout=6)
            assert monotonic() == 12

    simulate(scenario)


@pytest.mark.parametrize("how", ["append", "release", "retry", "requeue"])
def test_whoever_waits_is_woken_at_once(how):
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            log = backend.log("x")
            ids = await log.append_many([b"a", b"b", b"c"])
            await log.create_group("g")
            await log.turn("g", "c", GroupTurn(limit=3))
            await log.turn("g", "c", GroupTurn(buried={ids[2]: b""}, retries={ids[1]: 100}))
            ended: list[float] = []

            async def wait() -> None:
                assert await log.wait("g", timeout=50)
                ended.append(monotonic())

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                tasks.start_soon(wait)
                await sleep(3)
                match how:
                    case "append":
                        await log.append_many([b"d"])
                    case "release":
                        await log.turn("g", "c", GroupTurn(releases=[ids[0]]))
                    case "retry":
                        await log.turn("g", "c", GroupTurn(retries={ids[0]: 0}))
                    case "requeue":
                        await log.requeue("g", [ids[2]])
            assert ended == [3, 3]

    simulate(scenario)


def test_closing_the_backend_ends_the_wait():
    async def scenario() -> None:
        backend = MemoryBackend()
        await backend.__aenter__()
        log = backend.log("x")
        await log.create_group("g")

        async def close() -> None:
            await sleep(1)
            await backend.__aexit__(None, None, None)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            with pytest.raises(ClosedError):
                await log.wait("g", timeout=100)
        assert monotonic() == 1

    simulate(scenario)


@pytest.mark.promise("backends-log-conserved")
def test_no_entry_is_lost_under_any_schedule_and_crash():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            log = backend.log("x")
            await log.create_group("g")
            acked: list[str] = []
            held: dict[str, str] = {}

            async def consume(consumer: str) -> None:
                """Acknowledge, fail, give back and, now and then, forget what was claimed."""
                turn = GroupTurn(limit=3, idle=5)
                while len(acked) < 30:
                    turned = await log.turn("g", consumer, turn)
                    acked.extend(each for each in turn.acks if each not in turned.lost)
                    for each in turned.claimed:
                        held[each.id] = consumer
                    dice = {each.id: rng().random() for each in turned.claimed}
                    turn = GroupTurn(
                        acks=[each for each, roll in dice.items() if roll < 0.6],
                        retries={each: roll for each, roll in dice.items() if 0.6 <= roll < 0.7},
                        releases=[each for each, roll in dice.items() if 0.7 <= roll < 0.9],
                        limit=rng().randrange(4),
                        idle=5,
                    )
                    await sleep(rng().random())
                    if not dice:
                        await log.wait("g", timeout=5)
                    mine = {each.id for each in await log.held("g", consumer)}
                    assert {each for each in mine if held[each] != consumer} == set()

            ids: list[str] = []
            async with anyio.create_task_group() as tasks:
                for consumer in "abc":
                    tasks.start_soon(consume, consumer)
                for number in range(10):
                    ids += await log.append_many([b"%d" % number] * 3)
                    await sleep(rng().random())
            assert sorted(acked) == sorted(ids)
            assert await log.pending("g") == []

    explore(scenario, range(200))


def test_cancelling_a_wait_claims_nothing():
    def scenario() -> Trial:
        backend = MemoryBackend()
        log = backend.log("x")

        async def work() -> None:
            async with backend:
                await log.create_group("g")
                assert not await log.wait("g", timeout=1)
                await log.append_many([b"a"])
                assert await log.wait("g", timeout=1)

        async def check() -> None:
            async with backend:
                assert await log.lag("g") == await log.length()

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=1)


async def test_an_unknown_group_is_refused():
    async with MemoryBackend() as backend:
        log = backend.log("x")
        for call in (
            log.turn("g", "c", GroupTurn()),
            log.held("g", "c"),
            log.wait("g", timeout=0),
            log.pending("g"),
            log.lag("g"),
            log.dead("g"),
            log.requeue("g", []),
        ):
            with pytest.raises(ValueError, match="log 'x' has no group 'g'; make it with create_g"):
                await call


async def test_bad_input_is_refused():
    async with MemoryBackend() as backend:
        log: Any = backend.log("x")
        await log.create_group("g")
        with pytest.raises(ValueError, match="name must be a non-empty string"):
            backend.log("")
        for call, message in (
            (lambda: log.append_many(b"a"), "payloads must be a sequence of bytes"),
            (lambda: log.append_many(["a"]), "payloads must be bytes"),
            (lambda: log.append_many([b"a"], max_length=0), "max_length must be"),
            (lambda: log.append_many([b"a"], token=""), "token must be a non-empty string"),
            (lambda: log.read(after="x"), "after must be an id"),
            (lambda: log.read(after="$"), "after must be an id"),
            (lambda: log.read(limit=0), "limit must be a whole number >= 1"),
            (lambda: log.trim(max_length=-1), "max_length must be a whole number >= 0"),
            (lambda: log.create_group(""), "group must be a non-empty string"),
            (lambda: log.create_group("a", after="x"), "after must be an id"),
            (lambda: log.delete_group(""), "group must be a non-empty string"),
            (lambda: log.turn("", "c", GroupTurn()), "group must be a non-empty string"),
            (lambda: log.turn("g", "", GroupTurn()), "consumer must be a non-empty string"),
            (lambda: log.turn("g", "c", GroupTurn(limit=-1)), "limit must be"),
            (lambda: log.held("g", ""), "consumer must be a non-empty string"),
            (lambda: log.wait("g", timeout=-1), "timeout must be a finite number >= 0"),
            (lambda: log.pending("g", limit=0), "limit must be"),
            (lambda: log.dead("g", limit=0), "limit must be"),
            (lambda: log.requeue("g", "1-0"), "ids must be a collection of strings"),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                await call()


async def test_a_closed_backend_is_told_so():
    log = MemoryBackend().log("x")
    for call in (
        log.append_many([]),
        log.read(),
        log.length(),
        log.trim(max_length=0),
        log.create_group("g"),
        log.delete_group("g"),
        log.lag("g"),
        log.wait("g", timeout=1),
    ):
        with pytest.raises(ClosedError):
            await call
