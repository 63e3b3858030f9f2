"""Channels, pools, pipelines, streams, map-reduce and graphs, used and disturbed by chance."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio import EndOfStream, create_task_group, move_on_after

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import ClosedError, QueueFullError, TimeoutExceededError
from aiopatterns.flow import (
    Autoscale,
    Channel,
    Dag,
    DeadLetter,
    HandleStatus,
    Pipeline,
    WorkerPool,
    map_reduce,
    scatter_gather,
    stream_map,
)
from aiopatterns.resilience import Retry
from aiopatterns.resilience.backoff import Constant
from tests.sweep.run import FOREVER

if TYPE_CHECKING:
    from tests.sweep.run import Run

__all__ = ["flow"]

ENDED = {HandleStatus.DONE, HandleStatus.FAILED, HandleStatus.CANCELLED}


async def flow(run: Run) -> None:
    """Three of the patterns at once."""
    parts = [through_channel, through_pool, through_pipeline, through_stream, reduced, as_graph]
    async with create_task_group() as tasks:
        for part in run.dice.sample(parts, 3):
            tasks.start_soon(part, run)


def patience(run: Run) -> float:
    """How long somebody waits until it gives up: often for ever."""
    return run.dice.choice([0.0, 0.01, 0.1, FOREVER, FOREVER])


async def through_channel(run: Run) -> None:
    """What was sent is received once or dropped, whoever gives up waiting."""
    lost: list[Any] = []
    overflow: Any = run.dice.choice(["wait", "drop_new", "drop_old", "fail"])
    channel = Channel[tuple[int, int]](
        run.dice.randint(1, 5), overflow=overflow, on_drop=lost.append
    )
    sent: list[tuple[int, int]] = []
    got: list[tuple[int, int]] = []

    def check() -> None:
        found = channel.statistics()
        assert found.sent == found.received + found.dropped + found.queued
        assert found.dropped == len(lost)
        assert found.received >= len(got)

    run.always(check)

    async def send(sender: int) -> None:
        for number in range(8):
            await sleep(run.dice.choice([0.0, 0.0, 0.02]))
            with move_on_after(patience(run)), suppress(QueueFullError):
                await channel.send((sender, number))
                sent.append((sender, number))

    async def receive() -> None:
        while True:
            with move_on_after(patience(run)) as scope:
                try:
                    if run.chance(0.5):
                        got.append(await channel.receive())
                    else:
                        got.extend(await channel.receive_many(3, within=0.01))
                except EndOfStream:
                    return
            if scope.cancelled_caught or run.chance(0.3):
                await sleep(0.01)

    async with create_task_group() as receivers:
        for _ in range(run.dice.randint(1, 3)):
            receivers.start_soon(receive)
        async with create_task_group() as senders:
            for sender in range(3):
                senders.start_soon(send, sender)
        channel.close()
    assert Counter(got + lost) == Counter(sent)
    assert channel.statistics().queued == 0


async def through_pool(run: Run) -> None:
    """Every item ends in one of the ways there are, and is counted once at every instant."""
    attempts: Counter[int] = Counter()
    failing = {number: run.dice.choice([0, 0, 0, 1, 2, 9]) for number in range(40)}

    async def work(number: int) -> int:
        attempts[number] += 1
        await sleep(run.dice.choice([0.0, 0.01, 0.2]))
        if attempts[number] <= failing[number]:
            raise OSError(number)
        return number

    workers: Any = run.dice.choice([1, 3, Autoscale(1, 4, target_wait=0.01, idle=0.05)])
    retry = Retry(on=OSError, attempts=3, backoff=Constant(0.02))
    pool = WorkerPool(work, workers=workers, queue=run.dice.randint(1, 9), retry=retry, timeout=5)

    def check() -> None:
        if pool.is_open:
            found = pool.statistics()
            ended = found.done + found.failed + found.cancelled + found.dropped
            assert found.accepted == ended + found.queued + found.running

    run.always(check)
    handles: dict[int, Any] = {}

    async def use(numbers: range) -> None:
        for number in numbers:
            with move_on_after(patience(run)), suppress(OSError, QueueFullError, ClosedError):
                match run.dice.randrange(5):
                    case 0:
                        assert await pool.run(number, key=number % 3) == number
                    case 1:
                        handles[number] = pool.submit_nowait(number)
                    case 2:
                        async with pool.stream([number]) as outcomes:
                            assert [each.ok async for each in outcomes] == [failing[number] < 3]
                    case _:
                        handles[number] = await pool.submit(number, priority=number % 2)
            if handles and run.chance(0.2):
                run.dice.choice([*handles.values()]).cancel()

    async def steer() -> None:
        for _ in range(4):
            await sleep(run.dice.random() * 0.2)
            if isinstance(workers, int):
                pool.resize(run.dice.randint(1, 4))
            pool.pause()
            await sleep(run.dice.random() * 0.1)
            pool.resume()

    with move_on_after(patience(run) if run.chance(0.3) else FOREVER) as left:
        async with pool, create_task_group() as tasks:
            for start in range(0, 40, 10):
                tasks.start_soon(use, range(start, start + 10))
            tasks.start_soon(steer)
    for number, handle in handles.items():
        assert handle.status in ENDED
        if handle.status is HandleStatus.DONE:
            assert await handle == number
            assert attempts[number] == failing[number] + 1
    found = pool.statistics()
    assert (found.queued, found.running, found.workers) == (0, 0, 0)
    assert left.cancelled_caught or found.dropped == 0


async def through_pipeline(run: Run) -> None:
    """Each item comes out, or is in the dead letters; items of one key stay in order."""
    dead: list[int] = []
    loaded: list[int] = []
    bad = {number for number in range(40) if run.chance(0.1)}

    async def source() -> Any:
        for number in range(40):
            await sleep(run.dice.choice([0.0, 0.0, 0.03]))
            yield number

    async def spoilt(item: Any) -> None:
        dead.append(item.item)

    async def parse(number: int) -> int:
        await sleep(run.dice.random() * 0.05)
        if number in bad:
            raise ValueError(number)
        return number

    async def enrich(number: int) -> int:
        await sleep(run.dice.random() * 0.05)
        return number

    async def load(batch: list[int]) -> None:
        await sleep(run.dice.random() * 0.02)
        loaded.extend(batch)

    by_key = lambda number: number % 3
    pipe = (
        Pipeline(source(), capacity=run.dice.randint(1, 10))
        .map(parse, workers=run.dice.randint(1, 4), on_error=DeadLetter(spoilt))
        .map(enrich, key=by_key, workers=3)
        .batch(run.dice.randint(1, 7), within=0.05)
    )
    report = await pipe.run(into=load)
    assert sorted(dead) == sorted(bad)
    assert sorted(loaded + dead) == [*range(40)]
    assert (report.read, report.failed, report.queued) == (40, len(bad), 0)
    keyed: dict[int, list[int]] = defaultdict(list)
    for number in loaded:
        keyed[by_key(number)].append(number)
    assert all(numbers == sorted(numbers) for numbers in keyed.values())


async def through_stream(run: Run) -> None:
    """Never more calls than the limit; all outcomes, in order if wanted, also if one leaves early."""
    limit, ordered = run.dice.randint(1, 5), run.chance(0.5)
    running = 0

    def check() -> None:
        assert running <= limit

    run.always(check)

    async def work(number: int) -> int:
        nonlocal running
        running += 1
        try:
            await sleep(run.dice.random() * 0.1)
            if number % 7 == 6:
                raise OSError(number)
            return number
        finally:
            running -= 1

    stop = run.dice.choice([5, 1_000])
    seen: list[int] = []
    async with stream_map(work, range(30), limit, ordered=ordered, errors="collect") as results:
        async for each in results:
            seen.append(each.index)
            assert each.ok == (each.index % 7 != 6)
            if len(seen) == stop:
                break
    assert running == 0
    assert len(seen) == min(stop, 30)
    assert not ordered or seen == sorted(seen)


async def reduced(run: Run) -> None:
    """The sum is right however it was cut; a quorum has as many answers as it needs."""

    async def square(number: int) -> int:
        await sleep(run.dice.random() * 0.01)
        return number * number

    total = await map_reduce(
        range(50),
        square,
        lambda left, right: left + right,
        initial=int,
        chunk=run.dice.randint(1, 9),
    )
    assert total == sum(number * number for number in range(50))

    async def answer(number: int) -> int:
        await sleep(run.dice.random())
        if number == 0:
            raise OSError
        return number

    calls = {number: lambda number=number: answer(number) for number in range(5)}
    got = await scatter_gather(calls, need=3, timeout=2)
    assert len(got.values) >= 3
    assert all(key == value for key, value in got.values.items())


async def as_graph(run: Run) -> None:
    """A task runs once, after all that it depends on, and never more at once than the limit."""
    limit = run.dice.randint(1, 4)
    graph, ended, running = Dag("sweep", limit=limit), set[str](), 0

    def check() -> None:
        assert running <= limit

    run.always(check)
    before: dict[str, list[str]] = {}
    for number in range(12):
        name = f"t{number}"
        before[name] = run.dice.sample([*before], min(len(before), run.dice.randint(0, 3)))

        async def work(name: str = name) -> None:
            nonlocal running
            assert ended.issuperset(before[name])
            assert name not in ended
            running += 1
            try:
                await sleep(run.dice.random() * 0.1)
            finally:
                running -= 1
            ended.add(name)

        graph.add(work, id=name, after=before[name])
    with suppress(TimeoutExceededError), move_on_after(patience(run)) as scope:
        await graph.run()
    assert running == 0
    assert scope.cancelled_caught or ended == before.keys()
