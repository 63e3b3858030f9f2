"""The Redis queue: wake-ups, faults, full servers, bounds. The contract itself is in conformance."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.queue import Bucket, How, NewJob, Settled, Turn, UniqueKey
from aiopatterns.backends.redis import queue as redis_queue
from aiopatterns.backends.redis.backend import RedisBackend
from aiopatterns.backends.redis.binaries import installed_binaries
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.queue import RedisQueue
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.testing.clusters import RedisCluster

pytestmark = [pytest.mark.real, pytest.mark.leaves("{ap:q:*")]

TAG = "{ap:q:q}"
ENDS: tuple[How, ...] = ("done", "retry", "dead", "release")
HOWS: tuple[How, ...] = ("done", "done", "release", "retry")


VERSIONS = sorted({each.version for each in installed_binaries()})


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisBackend]:
    async with open_backend(url) as backend:
        assert isinstance(backend, RedisBackend)
        yield backend


@pytest.fixture
async def backend(redis_url):
    async with opened(redis_url) as backend:
        yield backend


@pytest.fixture
def queue(backend) -> RedisQueue:
    return backend.queue("q")


def jobs(count: int, **options) -> list[NewJob]:
    return [NewJob(f"j{n:04}", b"body", **options) for n in range(count)]


def turns(worker: str, lease: float = 15.0):
    """A function that makes the turns of a worker, numbered."""
    number = 0

    def turn(settled=(), free=0, **options) -> Turn:
        nonlocal number
        number += 1
        return Turn(worker, number, lease, settled, free, **options)

    return turn


def done(turned) -> list[Settled]:
    return [Settled(job.id, "done", b"result") for job in turned.claimed]


async def keys_left(backend) -> list[str]:
    return sorted(each.decode() for each in await backend.client.read("KEYS", "*"))


# ------------------------------------------------------------------------------------- drained


@pytest.mark.promise("backends-queue-nothing-left")
async def test_after_the_last_job_nothing_is_left(backend, queue):
    turn = turns("w")
    await queue.enqueue(jobs(300, priority=3))
    turned = await queue.step(turn(free=200))
    while turned.claimed:
        turned = await queue.step(turn(done(turned), free=200))
    await queue.step(turn(leave=True))
    assert await keys_left(backend) == []


@pytest.mark.promise("backends-queue-nothing-left")
async def test_what_is_kept_has_a_life(backend, queue):
    turn = turns("w")
    await queue.enqueue(
        [*jobs(2, keep=60.0), NewJob("x", b"", unique=UniqueKey("k", "throttle", 60.0))]
    )
    first, second, third = (await queue.step(turn(free=3))).claimed
    settled = [
        Settled(first.id, "done"),
        Settled(second.id, "dead", b"why"),
        Settled(third.id, "done"),
    ]
    await queue.step(turn(settled))
    await queue.step(turn(leave=True))
    left = await keys_left(backend)
    assert left == [f"{TAG}:dead", f"{TAG}:letters", f"{TAG}:res:j0000", f"{TAG}:win:k"]
    for key in left:
        assert await backend.client.read("PTTL", key) > 0


async def test_cancelling_all_leaves_nothing(backend, queue):
    await queue.enqueue([*jobs(30), *(NewJob(f"l{n}", b"", delay=60.0) for n in range(3))])
    ids = [each.id for each in jobs(30)]
    random.Random(1).shuffle(ids)
    await queue.cancel([*ids, "l0", "l1", "l2"])
    assert await keys_left(backend) == []


async def test_cancelled_entries_of_a_long_lane_are_swept(backend, queue):
    for first in range(0, 3000, 500):
        await queue.enqueue([NewJob(f"j{n:04}", b"") for n in range(first, first + 500)])
    gone = [f"j{n:04}" for n in range(1, 2999) if n % 3]
    await queue.cancel(gone)
    assert (await queue.counts()).queued == 3000 - len(gone)
    assert await backend.client.read("LLEN", f"{TAG}:lane:0") <= 2 * 1000
    turn = turns("w")
    claimed = []
    while turned := (await queue.step(turn(free=500))).claimed:
        claimed += [job.id for job in turned]
    assert claimed == [f"j{n:04}" for n in range(3000) if f"j{n:04}" not in set(gone)]


async def calls_of(backend, command: str) -> int:
    """How often the server has run a command."""
    found = re.search(
        rf"cmdstat_{command}:calls=(\d+)", str(await backend.client.read("INFO", "all"))
    )
    return int(found[1]) if found else 0


async def test_the_end_of_a_long_lane_is_cancelled_in_bounded_time(backend, queue):
    ids = [f"j{n:04}" for n in range(5000)]
    for first in range(0, 5000, 500):
        await queue.enqueue([NewJob(each, b"") for each in ids[first : first + 500]])
    await queue.cancel(ids[3000:-1])
    popped, looked = await calls_of(backend, "rpop"), await calls_of(backend, "lpos")
    await queue.cancel([ids[-1]])  # 1,999 entries before it are to be skipped
    assert await calls_of(backend, "rpop") - popped == 1 + 1000
    assert await calls_of(backend, "lpos") == looked  # each would look through all of the lane
    assert (await queue.counts()).queued == 3000
    turn = turns("w")
    claimed = []
    while (turned := await queue.step(turn(free=500))).claimed or turned.more:
        claimed += [job.id for job in turned.claimed]
    assert claimed == ids[:3000]
    assert not await backend.client.read("EXISTS", f"{TAG}:lane:0", f"{TAG}:gone")


async def test_jobs_that_come_again_after_a_cancel_do_not_hold_up_the_end_of_a_lane(backend, queue):
    ids = [f"j{n:04}" for n in range(3000)]
    for first in range(0, 3000, 500):
        await queue.enqueue([NewJob(each, b"") for each in ids[first : first + 500]])
    again = ids[2000:-1]
    await queue.cancel(again)
    for first in range(0, len(again), 500):
        await queue.enqueue([NewJob(each, b"", delay=60.0) for each in again[first : first + 500]])
    looked = await calls_of(backend, "lpos")
    await queue.cancel([ids[-1]])
    assert await calls_of(backend, "lpos") == looked
    turn = turns("w")
    claimed = []
    while (turned := await queue.step(turn(free=500))).claimed or turned.more:
        claimed += [job.id for job in turned.claimed]
    assert claimed == ids[:2000]
    counts = await queue.counts()
    assert (counts.queued, counts.scheduled) == (0, len(again))
    assert not await backend.client.read("EXISTS", f"{TAG}:lane:0", f"{TAG}:gone")


# -------------------------------------------------------------------------------------- faults


@pytest.mark.promise("backends-queue-lost-answers")
async def test_lost_answers_lose_and_double_nothing(queue):
    """Every answer of a worker may be lost; it recovers as the contract says."""
    dice = random.Random(7)
    ran: dict[str, int] = {}
    number = 0
    held: set[str] = set()
    settled: list[Settled] = []
    fresh = [NewJob(f"j{n}", b"", keep=60.0) for n in range(400)]
    for first in range(0, 400, 50):
        await queue.enqueue(fresh[first : first + 50])  # the answer to this one is lost
        assert not any(each.created for each in await queue.enqueue(fresh[first : first + 50]))
    while True:
        number += 1
        turned = await queue.step(Turn("w", number, 15.0, settled, 20))
        assert not turned.stale
        claimed = turned.claimed
        if dice.random() < 0.5:
            again = await queue.step(Turn("w", number, 15.0, settled, 0))
            assert not again.claimed
            assert not again.stale
            claimed = [job for job in await queue.held("w") if job.id not in held]
        held -= {each.id for each in settled}
        for job in claimed:
            ran[job.id] = ran.get(job.id, 0) + 1
            held.add(job.id)
        assert held == {job.id for job in await queue.held("w")}
        settled = [Settled(each, "done", b"") for each in sorted(held)[: dice.randrange(20)]]
        if not held and not turned.more:
            break
    assert ran == {job.id: 1 for job in fresh}


@pytest.mark.promise("backends-queue-fence")
async def test_a_paused_worker_is_refused_and_learns_it(backend, queue):
    slow, quick = turns("slow", lease=0.05), turns("quick")
    await queue.enqueue(jobs(3, attempts=9, keep=60.0))
    held = await queue.step(slow(free=3))
    await anyio.sleep(0.08)
    first = await queue.step(quick(free=3))
    assert [(job.id, job.attempt, job.alone) for job in first.claimed] == [("j0000", 2, True)]
    late = await queue.step(slow([Settled(job.id, "done", b"stale") for job in held.claimed]))
    assert late.reaped
    assert late.stale == ["j0000", "j0001", "j0002"]
    assert await queue.outcomes(late.stale) == {}
    await queue.step(quick([Settled("j0000", "done", b"good")]))
    assert (await queue.outcomes(["j0000"]))["j0000"].data == b"good"


@pytest.mark.promise("backends-queue-poison")
async def test_poison_is_dead_after_exactly_its_attempts(queue):
    await queue.enqueue([NewJob("poison", b"", attempts=3), *jobs(4, attempts=99)])
    starts, lives = 0, 0
    while (await queue.counts()).dead == 0:
        lives += 1
        turned = await queue.step(Turn(f"w{lives}", 1, 0.02, (), 5))
        starts += any(job.id == "poison" for job in turned.claimed)
        others = [Settled(job.id, "done") for job in turned.claimed if job.id != "poison"]
        if lives > 1:  # the first dies with all that it has
            await queue.step(Turn(f"w{lives}", 2, 0.02, others))
        await anyio.sleep(0.03)
        await queue.step(Turn("sweeper", lives, 15.0))
        assert lives < 30
    assert starts == 3
    assert (await queue.outcomes(["poison"]))["poison"].attempts == 3


async def test_a_crowd_of_held_jobs_is_taken_back_in_bounded_steps(queue):
    turn = turns("dead", lease=0.3)
    for first in range(0, 1500, 500):
        await queue.enqueue(
            [NewJob(f"j{n:04}", b"", attempts=2) for n in range(first, first + 500)]
        )
        await queue.step(turn(free=500))
    assert (await queue.counts()).running == 1500
    await anyio.sleep(0.35)
    look = turns("look")
    back = await queue.step(look())
    assert back.more
    late = await queue.step(turn([Settled("j0000", "done")]))
    assert late.reaped
    assert late.stale == ["j0000"]
    steps = 1
    while back.more:
        steps += 1
        back = await queue.step(look())
    assert steps <= 4
    counts = await queue.counts()
    assert (counts.queued, counts.running, counts.workers) == (1500, 0, 2)


@pytest.mark.promise("backends-queue-limits")
async def test_limits_hold_under_many_workers(queue):
    dice = random.Random(3)
    most = {"a": 2, "b": 3, "c": 1}
    for n in range(120):
        names = dice.sample(sorted(most), dice.randint(1, 2))
        limits = tuple(Bucket(each, None, most[each]) for each in names)
        await queue.enqueue(
            [NewJob(f"j{n}", ",".join(names).encode(), dice.randrange(3), limits=limits)]
        )
    running: dict[str, int] = dict.fromkeys(most, 0)
    held: dict[str, list] = {f"w{n}": [] for n in range(5)}
    turn = {each: turns(each) for each in held}
    finished = 0
    for _ in range(2000):
        worker = dice.choice(sorted(held))
        ends = [job for job in held[worker] if dice.random() < 0.5]
        how: How = dice.choice(HOWS)
        turned = await queue.step(turn[worker]([Settled(job.id, how) for job in ends], 3))
        for job in ends:
            held[worker].remove(job)
            finished += how == "done"
            for name in job.body.decode().split(","):
                running[name] -= 1
        for job in turned.claimed:
            held[worker].append(job)
            for name in job.body.decode().split(","):
                running[name] += 1
        assert all(running[each] <= most[each] for each in most)
        if finished == 120:
            break
    assert finished == 120


# ------------------------------------------------------------------------------------ wake-ups


async def test_a_wait_is_woken_by_an_enqueue(queue):
    began = monotonic()
    async with anyio.create_task_group() as group:

        async def later() -> None:
            await anyio.sleep(0.05)
            await queue.enqueue(jobs(1))

        group.start_soon(later)
        assert await queue.wait("w", timeout=5.0)
    assert monotonic() - began < 1.0


@asynccontextmanager
async def idle_workers(queue, count: int, timeout: float = 3.0):
    """So many workers that wait, step once when woken, and hold what they get."""
    got: dict[str, list[str]] = {}
    woken: list[str] = []

    async def work(worker: str) -> None:
        turn = turns(worker)
        await queue.step(turn(free=1))
        if await queue.wait(worker, timeout=timeout):
            woken.append(worker)
            turned = await queue.step(turn(free=1))
            got[worker] = [job.id for job in turned.claimed]

    async with anyio.create_task_group() as group:
        for n in range(count):
            group.start_soon(work, f"w{n}")
        await anyio.sleep(0.1)
        yield got, woken
        group.cancel_scope.cancel()


@pytest.mark.promise("backends-queue-wake")
async def test_a_batch_wakes_one_after_another(queue):
    async with idle_workers(queue, 6) as (got, woken):
        await queue.enqueue(jobs(4))
        await anyio.sleep(0.4)
        assert len(woken) == 4
        assert sorted(name for each in got.values() for name in each) == [
            f"j{n:04}" for n in range(4)
        ]


async def test_one_job_wakes_one_worker(queue):
    async with idle_workers(queue, 6) as (got, woken):
        await queue.enqueue(jobs(1))
        await anyio.sleep(0.2)
        assert len(woken) == 1
        assert list(got.values()) == [["j0000"]]


@pytest.mark.promise("backends-queue-wake")
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_cancelled_wait_hands_its_wake_up_on(version):
    with RedisServer(version=version) as server:
        async with opened(server.url) as backend:
            await _cancel_near_the_wake_up(backend.queue("q"))


async def _cancel_near_the_wake_up(queue) -> None:
    """However near the cancellation is to the wake-up, somebody gets the job."""
    dice = random.Random(5)
    for n in range(25):
        taken: list[str] = []

        async def work(worker: str, taken: list[str] = taken, n: int = n) -> None:
            turn = turns(f"{worker}-{n}")
            while not taken:
                await queue.wait(f"{worker}-{n}", timeout=2.0)
                taken += [job.id for job in (await queue.step(turn(free=1))).claimed]

        victim = asyncio.create_task(queue.wait(f"victim-{n}", timeout=2.0))
        await anyio.sleep(0.005)
        began = monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(work, "heir")
            await anyio.sleep(0.005)
            enqueue = asyncio.create_task(queue.enqueue([NewJob(f"n{n}", b"")]))
            for _ in range(dice.randrange(6)):
                await asyncio.sleep(0)
            victim.cancel()
            with suppress(asyncio.CancelledError):
                # A victim that was woken before the cancellation got the wake-up and is done.
                if await victim:
                    await queue.step(Turn(f"victim-{n}", 1, 15.0, leave=True))
            await enqueue
        assert taken == [f"n{n}"]
        assert monotonic() - began < 1.0


async def test_a_job_due_sooner_wakes_somebody_who_then_knows(queue):
    turn = turns("w")
    assert (await queue.step(turn(free=1))).next_due is None
    async with anyio.create_task_group() as group:
        group.start_soon(queue.enqueue, [NewJob("soon", b"", delay=0.5)])
        assert await queue.wait("w", timeout=5.0)
    assert 0 < (await queue.step(turn(free=1))).next_due <= 0.5
    await queue.enqueue([NewJob("later", b"", delay=0.9)])
    assert not await queue.wait("w", timeout=0.05)


async def test_an_idle_worker_gets_up_when_a_lease_ends(queue):
    await queue.enqueue(jobs(1, attempts=2))
    await queue.step(Turn("dead", 1, 0.2, (), 1))
    turn = turns("w")
    began = monotonic()
    assert not (await queue.step(turn(free=1))).claimed
    assert await queue.wait("w", timeout=5.0)
    assert monotonic() - began < 1.0
    (job,) = (await queue.step(turn(free=1))).claimed
    assert job.alone


async def test_a_full_worker_is_not_woken_by_work_but_by_its_name(queue):
    turn = turns("w")
    await queue.enqueue(jobs(3))
    (job,) = (await queue.step(turn(free=1))).claimed
    assert not await queue.wait("w", timeout=0.05)
    assert await queue.cancel([job.id]) == {job.id: "running"}
    assert await queue.wait("w", timeout=1.0)
    assert (await queue.step(turn())).cancels == [job.id]
    assert (await queue.step(turn([Settled(job.id, "cancelled")]))).cancels == []


async def test_a_long_wait_is_made_of_shorter_ones(queue, monkeypatch):
    monkeypatch.setattr(redis_queue, "_LONGEST_BLOCK", 0.02)
    began = monotonic()
    assert not await queue.wait("w", timeout=0.1)
    assert monotonic() - began >= 0.1


async def test_a_wait_ends_when_the_backend_is_closed(redis_url):
    async with opened(redis_url) as backend:
        waiting = asyncio.create_task(backend.queue("q").wait("w", timeout=30.0))
        await anyio.sleep(0.05)
    with pytest.raises((ClosedError, BackendUnavailableError)):
        await waiting


async def test_what_is_remembered_of_workers_is_bounded(queue):
    for n in range(1_100):
        queue._remember(Turn(f"w{n}", 1, 1.0), _Nothing, None)
    assert len(queue._seen) == 1_024


class _Nothing:
    claimed = ()
    quarantine = False


# ------------------------------------------------------------------------------------- servers


@pytest.mark.promise("backends-queue-full-server")
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_full_server_still_takes_settlements(version):
    with RedisServer(version=version) as server:
        async with opened(server.url) as backend:
            queue, turn = backend.queue("q"), turns("w")
            await queue.enqueue([NewJob(f"j{n}", bytes(20_000), keep=60.0) for n in range(50)])
            turned = await queue.step(turn(free=30))
            used = int(
                (await backend.client.read("INFO", "memory"))
                .split(b"used_memory:")[1]
                .split(b"\r")[0]
            )
            await backend.client.write("CONFIG", "SET", "maxmemory", used - 200_000)
            await backend.client.write("CONFIG", "SET", "maxmemory-policy", "noeviction")
            with pytest.raises(BackendError, match="OOM"):
                await queue.enqueue([NewJob("more", bytes(20_000))])
            with pytest.raises(BackendError, match="OOM"):
                await queue.enqueue([NewJob("more", bytes(20_000), delay=5.0)])
            assert await queue.states(["more"]) == {"more": "unknown"}
            beat = await queue.step(turn())  # the lease alone
            assert not beat.reaped
            assert await asyncio.to_thread(_renewed, queue)
            pairs = zip(turned.claimed, ENDS, strict=False)
            answer = await queue.step(turn([Settled(job.id, how) for job, how in pairs]))
            assert not answer.stale
            rest = [Settled(job.id, "done", b"r") for job in turned.claimed[4:]]
            assert not (await queue.step(turn(rest))).stale
            assert (await queue.outcomes([turned.claimed[9].id])).popitem()[1].data == b"r"
            await backend.client.write("CONFIG", "SET", "maxmemory", 0)
            assert (await queue.enqueue([NewJob("more", b"")]))[0].created


def _renewed(queue) -> bool:
    keeper = queue.keeper("w", lease=15.0)
    try:
        return keeper()
    finally:
        keeper.close()


@pytest.mark.parametrize("limits", [(), (Bucket("b", None, 500),)], ids=["plain", "limited"])
async def test_big_jobs_do_not_pile_up_in_one_answer(queue, limits):
    await queue.enqueue([NewJob(f"j{n:03}", bytes(300_000), limits=limits) for n in range(100)])
    turn = turns("w")
    claimed: list[str] = []
    while len(claimed) < 100:
        turned = await queue.step(turn(free=100))
        assert 0 < len(turned.claimed) <= 32
        claimed += [job.id for job in turned.claimed]
        assert turned.more == (len(claimed) < 100)
    assert claimed == [f"j{n:03}" for n in range(100)]


async def test_a_server_without_the_scripts_is_given_them(backend, queue):
    turn = turns("w")
    await queue.enqueue(jobs(1))
    await backend.client.once("SCRIPT", "FLUSH")
    assert len((await queue.step(turn(free=1))).claimed) == 1
    await backend.client.once("SCRIPT", "FLUSH")
    await queue.enqueue(jobs(2))
    assert (await queue.counts()).queued == 1


async def test_names_that_would_break_the_slot_are_escaped(backend):
    queue = backend.queue("a}b%{c")
    await queue.enqueue(jobs(1))
    assert all(key.startswith("{ap:q:a%7Db%25{c}:") for key in await keys_left(backend))


async def test_a_purge_goes_in_bounded_steps(queue):
    turn = turns("w")
    for first in range(0, 1200, 400):
        await queue.enqueue([NewJob(f"j{n}", b"") for n in range(first, first + 400)])
        turned = await queue.step(turn(free=400))
        await queue.step(turn([Settled(job.id, "dead", b"e") for job in turned.claimed]))
    assert (await queue.counts()).dead == 1200
    assert await queue.requeue([f"j{n}" for n in range(600)]) == 600
    assert await queue.purge([f"j{n}" for n in range(500, 700)]) == 100
    assert await queue.purge() == 500
    assert (await queue.counts()).dead == 0


async def test_dependents_beyond_one_step_follow(queue):
    turn = turns("w")
    await queue.enqueue([NewJob("root", b"")])
    for first in range(0, 2500, 500):
        await queue.enqueue(
            [NewJob(f"k{n:04}", b"", after=("root",)) for n in range(first, first + 500)]
        )
    (root,) = (await queue.step(turn(free=1))).claimed
    turned = await queue.step(turn([Settled(root.id, "done")]))
    assert turned.more
    assert (await queue.counts()).waiting == 1500
    # Until all are told, the parent is known, and new dependents see how it ended.
    assert not (await queue.enqueue([NewJob("root", b"again")]))[0].created
    await queue.enqueue([NewJob("late", b"", after=("root",))])
    assert await queue.states(["late"]) == {"late": "queued"}
    while turned.more and (await queue.counts()).waiting:
        turned = await queue.step(turn())
    assert (await queue.counts()).queued == 2501


async def test_a_job_may_wait_for_very_many(queue):
    for first in range(0, 9_000, 500):
        await queue.enqueue([NewJob(f"p{n:04}", b"") for n in range(first, first + 500)])
    parents = tuple(f"p{n:04}" for n in range(9_000))
    await queue.enqueue([NewJob("kid", b"", after=parents, keep=60.0)])
    assert (await queue.counts()).waiting == 1
    assert await queue.cancel(["p8999"]) == {"p8999": "cancelled"}
    assert await queue.states(["kid"]) == {"kid": "cancelled"}
    await queue.enqueue([NewJob("other", b"", after=parents)])
    assert await queue.cancel(["other"]) == {"other": "cancelled"}


async def test_a_job_that_waits_for_many_is_read_once(backend, queue):
    parents = [f"p{n:03}" for n in range(500)]
    await queue.enqueue([NewJob(each, b"") for each in parents])
    await queue.enqueue([NewJob("kid", b"", after=tuple(parents))])
    turn = turns("w")
    await queue.step(turn(free=500))
    before = await calls_of(backend, "hget")
    await queue.step(turn([Settled(each, "done") for each in parents[:-1]]))
    assert await calls_of(backend, "hget") - before < 10  # its value holds all the names
    await queue.step(turn([Settled(parents[-1], "done")]))
    assert await queue.states(["kid"]) == {"kid": "queued"}


async def test_a_cancel_takes_all_dependents_along(queue):
    await queue.enqueue([NewJob("root", b"", delay=60.0)])
    for first in range(0, 1500, 500):
        await queue.enqueue(
            [NewJob(f"k{n:04}", b"", after=("root",)) for n in range(first, first + 500)]
        )
    assert await queue.cancel(["root"]) == {"root": "cancelled"}
    counts = await queue.counts()
    assert (counts.waiting, counts.scheduled) == (0, 0)


@pytest.mark.parametrize(
    "version", [None, *(pytest.param(each, marks=pytest.mark.stress) for each in VERSIONS)]
)
async def test_a_cluster_moves_the_slot_under_load(version):
    """Every verb goes on while the slot moves twice; no job is lost, doubled or half made."""
    async with RedisCluster(version=version) as cluster, opened(cluster.url) as backend:
        queue = backend.queue("q")
        made = 0
        ran: list[str] = []
        moving = True

        async def produce() -> None:
            nonlocal made
            while moving:
                fresh = [NewJob(f"j{n:05}", bytes(500), keep=60.0) for n in range(made, made + 20)]
                await queue.enqueue(fresh)
                made += 20
                await queue.counts()
                await anyio.sleep(0.002)

        async def work(worker: str) -> None:
            turn, turned = turns(worker), None
            while turned is None or turned.claimed or moving:
                settled: list[Settled] = [] if turned is None else done(turned)
                turned = await queue.step(turn(settled, free=10))
                ran.extend(job.id for job in turned.claimed)
                if not turned.claimed:
                    with suppress(BackendUnavailableError):  # the slot is between two nodes
                        await queue.wait(worker, timeout=0.2)

        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            for worker in ("v", "w"):
                group.start_soon(work, worker)
            await anyio.sleep(0.1)
            for to in (1, 2):
                await cluster.move_slot(f"{TAG}:jobs", to=to)
                await anyio.sleep(0.1)
            keeper = queue.keeper("v", lease=15.0)
            assert await asyncio.to_thread(keeper)
            keeper.close()
            moving = False
        turn = turns("last")
        while claimed := (await queue.step(turn(free=500))).claimed:
            ran.extend(job.id for job in claimed)
        assert sorted(ran) == [f"j{n:05}" for n in range(made)]
        assert made > 100
