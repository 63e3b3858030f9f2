"""The protocols over memory, each used by several processes at once that stop where they like."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from anyio import create_task_group, move_on_after

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.records import GroupTurn
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.rate import Rate
from tests.sweep.run import FOREVER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.sweep.run import Run

__all__ = ["backends"]

PROCESSES = 4
RATE = Rate(5, per=1.0)
SLACK = 1e-3  # lives are kept to the millisecond


async def backends(run: Run) -> None:
    """All protocols but the queue, which the jobs have, on one server."""
    async with MemoryBackend("sweep") as server, create_task_group() as tasks:
        for part in (counting, leasing, limiting, listing, logging, telling):
            tasks.start_soon(part, run, server)
        for _ in range(3):
            await sleep(run.dice.random())
            run.step_clock(run.dice.choice([-3_600.0, 3_600.0]))


async def processes(run: Run, work: Callable[[int], Awaitable[None]]) -> None:
    """Several at once, each of which may stop at any moment."""

    async def live(number: int) -> None:
        with move_on_after(run.dice.choice([0.3, FOREVER, FOREVER])):
            await work(number)

    async with create_task_group() as tasks:
        for number in range(PROCESSES):
            tasks.start_soon(live, number)


async def counting(run: Run, server: MemoryBackend) -> None:
    """No addition is lost and none is made twice."""
    kv, swapped, added = server.kv, 0, 0

    async def count(number: int) -> None:
        nonlocal swapped, added
        del number
        for _ in range(8):
            old = await kv.get("swapped")
            await sleep(run.dice.choice([0.0, 0.01]))
            new = str(int(old or 0) + 1).encode()
            if await kv.compare_and_set("swapped", old, new):
                swapped += 1
            await kv.incr("added", 2)
            added += 2

    await processes(run, count)
    assert int(await kv.get("swapped") or 0) == swapped
    # What a process was about to count when it stopped may have been counted by the server.
    assert 0 <= int(await kv.get("added") or 0) - added <= 2 * PROCESSES


async def leasing(run: Run, server: MemoryBackend) -> None:
    """One holder at a time, tokens that only grow, and nobody who was late does harm."""
    lease = server.lease("sweep")
    held: dict[int, float] = {}  # until when, by token
    written = 0

    async def hold(number: int) -> None:
        nonlocal written
        del number
        for _ in range(5):
            await sleep(run.dice.random() * 0.2)
            ttl = run.dice.choice([0.1, 0.3])
            before = monotonic()
            mine = await lease.try_acquire(ttl=ttl)
            if mine is None:
                assert any(until > before - SLACK for until in held.values())
                continue
            assert all(until <= monotonic() + SLACK for until in held.values())
            assert mine.token > max(held, default=0)
            held[mine.token] = monotonic() + ttl
            await sleep(run.dice.random() * 0.4)
            if await mine.renew(ttl=ttl):
                assert mine.token == max(held)
                held[mine.token] = monotonic() + ttl
                written = mine.token
            assert written >= mine.token or held[mine.token] <= monotonic() + SLACK
            if await mine.release():
                held[mine.token] = monotonic()

    await processes(run, hold)


async def limiting(run: Run, server: MemoryBackend) -> None:
    """In no span of time more than the rate and the burst."""
    times: list[float] = []

    async def take(number: int) -> None:
        del number
        for _ in range(8):
            grant = await server.limiter("sweep").acquire("key", RATE, burst=2)
            if grant.allowed:
                times.append(monotonic())
            await sleep(run.dice.choice([0.0, grant.retry_after]))

    await processes(run, take)
    for first, began in enumerate(times):
        for last in range(first, len(times)):
            allowed = 2 + (times[last] - began) * RATE.amount / RATE.per
            assert last - first + 1 <= allowed + SLACK


async def listing(run: Run, server: MemoryBackend) -> None:
    """Who is listed is alive, and who is alive is listed; the revision grows with each change."""
    directory, until, revisions = server.directory("sweep"), dict[str, float](), [0]

    async def live(number: int) -> None:
        name = f"m{number}"
        for turn in range(6):
            if run.chance(0.2):
                await directory.remove(name)
                until.pop(name, None)
            else:
                await directory.put(name, b"%d" % (turn // 2), ttl=0.3)
                until[name] = monotonic() + 0.3
            await sleep(run.dice.random() * 0.5)
            now, found = monotonic(), await directory.snapshot()
            assert found.revision >= revisions[-1]
            revisions.append(found.revision)
            for each, end in until.items():
                assert each in found.members or end <= now + SLACK
                assert each not in found.members or end >= now - SLACK
            assert found.members.keys() <= until.keys()

    await processes(run, live)


async def logging(run: Run, server: MemoryBackend) -> None:
    """Every entry is done, in one pair of hands at a time, whoever dies with some in his."""
    log, idle = server.log("sweep"), 0.2
    await log.create_group("g")
    done: Counter[bytes] = Counter()
    holders: dict[str, tuple[int, float]] = {}  # by entry: whose, until when
    appended: list[bytes] = []

    async def append() -> None:
        for number in range(20):
            payload = b"%d" % number
            first = await log.append_many([payload], token=f"t{number}")
            if run.chance(0.3):  # the answer was lost
                assert await log.append_many([payload], token=f"t{number}") == first
            appended.append(payload)
            await sleep(run.dice.choice([0.0, 0.02]))

    async def consume(number: int) -> None:
        while len(done) < 20:
            turn = GroupTurn(limit=run.dice.randint(1, 4), idle=idle)
            claimed = (await log.turn("g", f"c{number}", turn)).claimed
            for each in claimed:
                owner, until = holders.get(each.id, (number, 0.0))
                assert owner == number or until <= monotonic() + SLACK
                holders[each.id] = (number, monotonic() + idle)
            await sleep(run.dice.choice([0.01, 0.05, 0.3]))
            await settle(number, claimed)

    async def settle(number: int, claimed: list[Any]) -> None:
        acks = [each for each in claimed if run.chance(0.7)]
        retries = {each.id: 0.05 for each in claimed if each not in acks}
        turn = GroupTurn(acks=[each.id for each in acks], retries=retries)
        lost = set((await log.turn("g", f"c{number}", turn)).lost)
        for each in claimed:
            if each.id not in lost:
                assert holders[each.id][0] == number
                del holders[each.id]
        done.update(each.payload for each in acks if each.id not in lost)

    async with create_task_group() as tasks:
        tasks.start_soon(append)
        tasks.start_soon(processes, run, consume)
        tasks.start_soon(consume, PROCESSES)
    assert done.keys() == set(appended)
    assert max(done.values()) == 1
    assert await log.pending("g") == []


async def telling(run: Run, server: MemoryBackend) -> None:
    """A subscriber hears all in order, or is told that something was lost."""
    heard: list[int] = []
    gaps = 0

    def gap() -> None:
        nonlocal gaps
        gaps += 1

    async with server.pubsub.subscribe("c", capacity=5, on_gap=gap) as notices:

        async def publish() -> None:
            for number in range(30):
                await server.pubsub.publish("c", b"%d" % number)
                await sleep(run.dice.choice([0.0, 0.0, 0.01]))
            await sleep(1)
            await server.pubsub.publish("c", b"end")

        async with create_task_group() as tasks:
            tasks.start_soon(publish)
            async for notice in notices:
                if notice.data == b"end":
                    break
                heard.append(int(notice.data))
                await sleep(run.dice.choice([0.0, 0.0, 0.02]))
    assert heard == sorted(set(heard))
    assert len(heard) == 30 or gaps
