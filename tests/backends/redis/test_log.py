from __future__ import annotations

from contextlib import suppress

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.records import Claimed, Entry, GroupTurn
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.backends.turns import MAX_DEAD
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError

pytestmark = [pytest.mark.real, pytest.mark.leaves("{ap:log:*")]


@pytest.fixture
async def backend(redis_url):
    async with open_backend(redis_url) as opened:
        yield opened


@pytest.fixture
def wire(redis_url):
    with Wire(redis_url) as connection:
        yield connection


async def filled(backend, number: int, name: str = "x"):
    """A log with so many entries ``0``, ``1`` ... and a group ``g``; and their ids."""
    log = backend.log(name)
    ids = await log.append_many([b"%d" % each for each in range(number)])
    await log.create_group("g")
    return log, ids


async def claimed_ids(log, consumer: str = "c", limit: int = 10, **turn) -> list[str]:
    turned = await log.turn("g", consumer, GroupTurn(limit=limit, **turn))
    return [each.id for each in turned.claimed]


async def test_entries_are_read_in_order_behind_an_id(backend):
    log = backend.log("x")
    assert backend.log("x") is log
    assert await log.append_many([]) == []
    ids = await log.append_many([b"a", b"\x00\xff"])
    ids += await log.append_many((b"c",))
    assert await log.read() == [
        Entry(each, body) for each, body in zip(ids, (b"a", b"\x00\xff", b"c"), strict=True)
    ]
    assert sorted(ids, key=lambda each: Entry(each, b"").sort_key) == ids
    assert await log.read(after=ids[0], limit=1) == [Entry(ids[1], b"\x00\xff")]
    assert await log.read(after=ids[2]) == []
    assert await log.length() == 3
    assert await log.trim(max_length=1) == 2
    assert await log.trim(max_length=1) == 0
    assert await log.read() == [Entry(ids[2], b"c")]


async def test_trimming_while_appending_keeps_at_least_so_many(backend):
    log = backend.log("x")
    for _ in range(30):
        await log.append_many([b""] * 50, max_length=200)
    assert 200 <= await log.length() <= 400


async def test_an_append_is_once_for_each_token(backend, wire):
    log = backend.log("x")
    ids = await log.append_many([b"a", b"b"], token="t:1")
    assert await log.append_many([b"a", b"b"], token="t:1") == ids
    assert await log.append_many([b"a"], token="u") != ids
    assert await log.length() == 3
    assert 590_000 < wire.call("PTTL", "{ap:log:x}:tok:t:1") <= 600_000
    await log.append_many([b"c"])
    tokens = wire.call("KEYS", "{ap:log:x}:tok:*")
    assert len(tokens) == 3
    assert min(wire.call("PTTL", each) for each in tokens) > 25_000


async def test_a_token_outlives_the_clients_patience(redis_url, wire):
    """Else an append that is sent again after a long silence would be a second one."""
    async with open_backend(redis_url, timeout=100.0) as backend:
        await backend.log("l").append_many([b"1"])
    (key,) = wire.call("KEYS", "*:tok:*")
    assert wire.call("PTTL", key) > 2 * 100_000


async def test_ids_of_one_append_are_known_from_the_first(backend):
    log = backend.log("x")
    ids = []
    for number in range(1, 60):
        ids += await log.append_many([b""] * number)
    assert [each.id for each in await log.read(limit=10_000)] == ids


async def test_groups_begin_where_they_are_told(backend):
    log = backend.log("x")
    assert await log.create_group("early", after="$")
    ids = await log.append_many([b"a", b"b"])
    assert await log.create_group("all")
    assert not await log.create_group("all", after="$")
    assert await log.create_group("new", after="$")
    assert await log.create_group("some", after=ids[0])
    found = [await log.lag(each) for each in ("early", "all", "new", "some")]
    assert found == [2, 2, 0, 1]
    await log.trim(max_length=0)
    assert await log.create_group("newest", after="$")
    ids += await log.append_many([b"c"])
    turned = await log.turn("newest", "c", GroupTurn(limit=5))
    assert turned.claimed == [Claimed(ids[2], b"c", 1)]


async def test_a_forgotten_group_leaves_nothing(backend, wire):
    log, ids = await filled(backend, 4)
    await claimed_ids(log)
    await log.turn("g", "c", GroupTurn(buried={ids[0]: b""}, retries={ids[1]: 50}))
    await log.turn("g", "c", GroupTurn(buried={ids[2]: b""}))
    await log.requeue("g", [ids[0]])
    assert await log.delete_group("g")
    assert not await log.delete_group("g")
    assert not [each for each in wire.call("KEYS", "*") if each.endswith(":g")]
    assert await log.create_group("g")
    assert await claimed_ids(log) == ids


async def test_claims_take_failed_then_abandoned_then_fresh_ones(backend):
    log, ids = await filled(backend, 4)
    await claimed_ids(log, limit=3)
    await log.turn("g", "c", GroupTurn(retries={ids[1]: 0}))
    await log.turn("g", "c", GroupTurn(releases=[ids[2]]))
    await sleep(0.02)
    turned = await log.turn("g", "d", GroupTurn(limit=10, idle=0.01))
    assert [(each.id, each.deliveries) for each in turned.claimed] == [
        (ids[1], 2),
        (ids[2], 1),
        (ids[0], 2),
        (ids[3], 1),
    ]
    turned = await log.turn("g", "c", GroupTurn(acks=ids))
    assert turned.lost == ids
    assert [each.id for each in await log.held("g", "d")] == ids


async def test_abandoned_entries_come_back_in_order_of_the_log(backend):
    log, ids = await filled(backend, 12)
    await claimed_ids(log, limit=12)
    await log.turn("g", "c", GroupTurn(renews=[ids[0]]))
    await sleep(0.02)
    assert await claimed_ids(log, "d", limit=20, idle=0.01) == ids


async def test_released_entries_come_back_in_the_order_of_their_release(backend):
    log, ids = await filled(backend, 12)
    await claimed_ids(log, limit=12)
    turned = await log.turn("g", "c", GroupTurn(releases=ids[::-1], limit=12))
    assert [each.id for each in turned.claimed] == ids[::-1]


async def test_a_retry_waits_for_its_time_and_is_told_of(backend):
    log, ids = await filled(backend, 1)
    await claimed_ids(log)
    await log.turn("g", "c", GroupTurn(retries={ids[0]: 0.05}))
    assert await claimed_ids(log) == []
    [waiting] = await log.pending("g")
    assert (waiting.id, waiting.consumer, waiting.deliveries) == (ids[0], "", 1)
    began = monotonic()
    assert await log.wait("g", timeout=5)
    assert 0.03 < monotonic() - began < 2
    assert await claimed_ids(log) == ids


async def test_pending_tells_who_has_what_since_when(backend):
    log, ids = await filled(backend, 3)
    await claimed_ids(log, "c:1\n:é", limit=2)
    await sleep(0.02)
    await log.turn("g", "c:1\n:é", GroupTurn(renews=[ids[1]]))
    one, other = await log.pending("g")
    assert (one.id, one.consumer, one.deliveries) == (ids[0], "c:1\n:é", 1)
    assert one.idle > 0.019
    assert one.idle - other.idle > 0.019  # however slow the machine is
    assert [each.id for each in await log.pending("g", limit=1)] == [one.id]


async def test_dead_letters_keep_reason_and_payload_and_come_back(backend):
    log, ids = await filled(backend, 3)
    await claimed_ids(log)
    await log.turn("g", "c", GroupTurn(buried={ids[1]: b"1:2", ids[0]: b""}, delete=True))
    assert await log.dead("g") == [
        (Claimed(ids[0], b"0", 1), b""),
        (Claimed(ids[1], b"1", 1), b"1:2"),
    ]
    assert len(await log.dead("g", limit=1)) == 1
    assert [each.id for each in await log.read()] == [ids[2]]
    assert await log.requeue("g", [ids[1], ids[0], ids[2], "7-7"]) == 2
    assert await log.requeue("g", ids) == 0
    turned = await log.turn("g", "d", GroupTurn(limit=5))
    assert turned.claimed == [Claimed(ids[1], b"1", 1), Claimed(ids[0], b"0", 1)]
    assert {each.payload for each in await log.held("g", "d")} == {b"0", b"1"}
    await log.turn("g", "d", GroupTurn(acks=[ids[0]], buried={ids[1]: b"again"}))
    assert await log.dead("g") == [(Claimed(ids[1], b"1", 1), b"again")]


async def test_the_oldest_dead_letters_make_room(backend, wire):
    log, _ = await filled(backend, MAX_DEAD + 5)
    ids = await claimed_ids(log, limit=MAX_DEAD + 5)
    assert len(ids) == MAX_DEAD + 5
    turned = await log.turn("g", "c", GroupTurn(buried=dict.fromkeys(ids, b"")))
    assert turned.lost == []
    assert wire.call("HLEN", "{ap:log:x}:dead:g") == MAX_DEAD
    assert (await log.dead("g", limit=1))[0][0].id == ids[-1]
    assert await log.requeue("g", ids) == MAX_DEAD


async def test_entries_that_were_trimmed_are_not_handed_out_again(backend, wire):
    log, ids = await filled(backend, 4)
    await claimed_ids(log)
    await log.turn("g", "c", GroupTurn(releases=[ids[0]]))
    await log.trim(max_length=0)
    assert await log.held("g", "c") == []
    turned = await log.turn("g", "c", GroupTurn(acks=[ids[3]], buried={ids[2]: b"why"}))
    assert turned.lost == []
    assert await log.dead("g") == [(Claimed(ids[2], b"", 1), b"why")]
    await sleep(0.002)
    assert await claimed_ids(log, "d", idle=0.001) == []
    assert await log.pending("g") == []
    assert wire.call("EXISTS", *(f"{{ap:log:x}}:{each}:g" for each in ("own", "idle", "due"))) == 0


async def test_lag_is_exact_also_when_single_entries_were_deleted(backend):
    log, ids = await filled(backend, 2_500)
    await log.create_group("h")
    assert await log.lag("g") == 2_500
    await claimed_ids(log, limit=100)
    assert await log.lag("g") == 2_400
    await log.turn("g", "c", GroupTurn(acks=ids[:50], delete=True))
    assert (await log.lag("g"), await log.lag("h")) == (2_400, 2_450)
    await claimed_ids(log, limit=5, acks=ids[50:100])
    await log.trim(max_length=100)
    assert (await log.lag("g"), await log.lag("h")) == (100, 100)
    assert len(await claimed_ids(log, limit=1_000)) == 100
    assert await log.lag("g") == 0


@pytest.mark.parametrize("how", ["append", "release", "retry", "requeue"])
async def test_whoever_waits_is_woken_at_once(backend, how):
    log, ids = await filled(backend, 3)
    await claimed_ids(log)
    await log.turn("g", "c", GroupTurn(buried={ids[2]: b""}, retries={ids[1]: 100}))
    ended = []

    async def wait() -> None:
        ended.append(await log.wait("g", timeout=30))

    began = monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await sleep(0.02)
        match how:
            case "append":
                await log.append_many([b"d"])
            case "release":
                await log.turn("g", "c", GroupTurn(releases=[ids[0]]))
            case "retry":
                await log.turn("g", "c", GroupTurn(retries={ids[0]: 0.01}))
            case "requeue":
                await log.requeue("g", [ids[2]])
    assert ended == [True, True]
    assert monotonic() - began < 10


async def test_a_wait_without_news_ends_with_its_time(backend):
    log, _ = await filled(backend, 0)
    assert not await log.wait("g", timeout=0)
    began = monotonic()
    assert not await log.wait("g", timeout=0.05)
    assert 0.04 < monotonic() - began < 2
    await log.append_many([b""])
    assert await log.wait("g", timeout=0)


async def test_a_cancelled_wait_claims_nothing_and_waits_share_connections(backend, wire):
    log, _ = await filled(backend, 0)
    for _ in range(5):
        with anyio.move_on_after(0.01):
            await log.wait("g", timeout=10)
    for _ in range(5):
        await log.wait("g", timeout=0.001)
    assert len(log._idle) == 1
    await log.append_many([b"a"])
    assert await log.wait("g", timeout=5)
    assert await log.lag("g") == 1


async def test_a_lost_server_is_told_and_the_next_wait_works():
    async with RedisServer(private=True) as server, open_backend(server.url) as backend:
        log, _ = await filled(backend, 0)

        async def kill() -> None:
            await sleep(0.02)
            await anyio.to_thread.run_sync(server.kill)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill)
            with pytest.raises(BackendUnavailableError):
                await log.wait("g", timeout=10)
        await anyio.to_thread.run_sync(server.restart)
        await log.create_group("g")
        assert not await log.wait("g", timeout=0.001)


async def test_a_lost_answer_appends_once_and_claims_nothing_unknown(fault_proxy):
    async with fault_proxy as proxy, open_backend(proxy.url) as backend:
        log, ids = await filled(backend, 2)
        proxy.drop_replies(matching=b"ap:")
        ids += await log.append_many([b"2"])
        assert [each.id for each in await log.read()] == ids
        await log.turn("g", "c", GroupTurn())  # the server knows the script now
        proxy.drop_replies(matching=b"ap:")
        with pytest.raises(BackendUnavailableError):
            await log.turn("g", "c", GroupTurn(limit=2))
        assert [each.id for each in await log.held("g", "c")] == ids[:2]
        assert await claimed_ids(log) == ids[2:]


@pytest.mark.promise("backends-log-conserved")
async def test_nothing_is_lost_in_a_storm(fault_proxy):
    """Replies and requests get lost all the time; every entry is acknowledged, by its holder.

    Nobody is idle for long enough to be taken over, so what is no longer held was acknowledged.
    """
    number, done, lost_answers = 300, set[str](), 0

    async def consume(log, consumer: str) -> None:
        nonlocal lost_answers
        acks: list[str] = []
        while len(done) < number:
            try:
                turned = await log.turn("g", consumer, GroupTurn(acks=acks, limit=3))
            except BackendUnavailableError:
                lost_answers += 1
                with suppress(BackendUnavailableError):  # what is held now is all there is to do
                    held = {each.id for each in await log.held("g", consumer)}
                    done.update(set(acks) - held)
                    acks = list(held)
                continue
            done.update(set(acks) - set(turned.lost))
            acks = [each.id for each in turned.claimed]
            if not acks:
                await sleep(0.01)

    async with fault_proxy as proxy, open_backend(proxy.url) as backend:
        log = backend.log("x")
        await log.create_group("g")
        proxy.storm(drop_reply_ratio=0.04, drop_request_ratio=0.03, duplicate_ratio=0.02)
        async with anyio.create_task_group() as tasks:
            for consumer in "abc":
                tasks.start_soon(consume, log, consumer)
            ids = []
            for first in range(0, number, 10):
                ids += await log.append_many([b"%d" % each for each in range(first, first + 10)])
        proxy.calm()
        assert done == set(ids)
        assert [each.payload for each in await log.read(limit=1_000)] == [
            b"%d" % each for each in range(number)
        ]
        assert await log.pending("g") == []
        assert lost_answers > 0


@pytest.mark.promise("backends-full-server")
async def test_a_full_server_refuses_appends_and_lets_consumers_drain():
    async with RedisServer(private=True) as server, open_backend(server.url) as backend:
        log, ids = await filled(backend, 6)
        with Wire(server.url) as wire:
            wire.call("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(BackendError, match="OOM"):
            await log.append_many([b"a"])
        with pytest.raises(BackendError, match="OOM"):
            await log.create_group("h")
        assert await claimed_ids(log, limit=5) == ids[:5]
        turn = GroupTurn([ids[0]], [ids[1]], {ids[2]: 5}, {ids[3]: b"why"}, [ids[4]], delete=True)
        assert (await log.turn("g", "c", turn)).lost == []
        assert await log.requeue("g", [ids[3]]) == 1
        assert await claimed_ids(log, acks=[ids[4]]) == [ids[1], ids[3], ids[5]]


async def test_names_are_strangers(backend):
    for name in ("a", "a}", "a%7D", "a:g"):
        log, _ = await filled(backend, 1, name)
        assert len(await claimed_ids(log)) == 1
        await log.create_group("own:g")
        assert (await log.turn("own:g", "c", GroupTurn(limit=5))).claimed != []


@pytest.mark.promise("backends-round-trips")
async def test_every_call_is_one_round_trip(backend):
    log, ids = await filled(backend, 6)
    calls = (
        lambda: log.append_many([b"a"] * 100, max_length=1_000, token="t"),
        log.read,
        log.length,
        lambda: log.trim(max_length=500),
        lambda: log.create_group("h"),
        lambda: log.turn("g", "c", GroupTurn(acks=ids, limit=100)),
        lambda: log.held("g", "c"),
        lambda: log.pending("g"),
        lambda: log.lag("g"),
        lambda: log.dead("g"),
        lambda: log.requeue("g", ids),
        lambda: log.delete_group("h"),
    )
    for call in calls:
        await call()  # the first time its script may not be known
        before = backend.statistics().round_trips
        await call()
        assert backend.statistics().round_trips == before + 1
    before = backend.statistics().round_trips
    assert await log.append_many([]) == []
    assert backend.statistics().round_trips == before


async def test_an_unknown_group_is_refused(backend):
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


async def test_bad_input_is_refused(backend):
    log, _ = await filled(backend, 0)
    with pytest.raises(ValueError, match="name must be a non-empty string"):
        backend.log("")
    for call, message in (
        (lambda: log.append_many(b"a"), "payloads must be a sequence of bytes"),
        (lambda: log.append_many(["a"]), "payloads must be bytes"),
        (lambda: log.append_many([b"a"], max_length=0), "max_length must be"),
        (lambda: log.append_many([b"a"], token=""), "token must be a non-empty string"),
        (lambda: log.read(after="$"), "after must be an id"),
        (lambda: log.read(limit=0), "limit must be a whole number >= 1"),
        (lambda: log.trim(max_length=-1), "max_length must be a whole number >= 0"),
        (lambda: log.create_group(""), "group must be a non-empty string"),
        (lambda: log.create_group("a", after="x"), "after must be an id"),
        (lambda: log.delete_group(""), "group must be a non-empty string"),
        (lambda: log.turn("", "c", GroupTurn()), "group must be a non-empty string"),
        (lambda: log.turn("g", "", GroupTurn()), "consumer must be a non-empty string"),
        (lambda: log.turn("g", "c", GroupTurn(limit=-1)), "limit must be"),
        (lambda: log.held("", "c"), "group must be a non-empty string"),
        (lambda: log.held("g", ""), "consumer must be a non-empty string"),
        (lambda: log.wait("", timeout=1), "group must be a non-empty string"),
        (lambda: log.wait("g", timeout=-1), "timeout must be a finite number >= 0"),
        (lambda: log.pending("", limit=1), "group must be a non-empty string"),
        (lambda: log.pending("g", limit=0), "limit must be"),
        (lambda: log.lag(""), "group must be a non-empty string"),
        (lambda: log.dead("", limit=1), "group must be a non-empty string"),
        (lambda: log.dead("g", limit=0), "limit must be"),
        (lambda: log.requeue("", ["1-0"]), "group must be a non-empty string"),
        (lambda: log.requeue("g", "1-0"), "ids must be a collection of strings"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            await call()


async def test_a_closed_backend_is_told_so(redis_url):
    log = open_backend(redis_url).log("x")
    for call in (
        log.append_many([]),
        log.append_many([b"a"]),
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
