"""The scripts and the reference machine, driven by the same operations, seen to be the same.

Both clocks are the test's: memory is given another source of time, and a shim in front of each
script answers TIME. What expires on the server is aged by hand. After every operation all that can
be seen of both queues is compared; at the end both are drained, and nothing may be left over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import methodcaller
from random import Random
from typing import Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.queue import Bucket, How, NewJob, Settled, Turn, UniqueKey, UniqueMode
from aiopatterns.backends.redis import queue as redis_queue
from aiopatterns.backends.redis.backend import RedisBackend
from aiopatterns.backends.redis.binaries import installed_binaries
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.scripts import Script
from aiopatterns.core import clock
from aiopatterns.core.rate import Rate

pytestmark = pytest.mark.real

SHIM = """
local redis = { call = function(command, ...)
  if command ~= 'TIME' then return redis.call(command, ...) end
  local at = redis.call('GET', 'test:clock')
  return { string.sub(at, 1, -7), string.sub(at, -6) }
end }
"""
START = 1_700_000_000
PAGED = ("queued", "scheduled", "waiting", "running", "dead")
IDS = [f"j{n}" for n in range(12)]
WORKERS = ["w0", "w1", "w2"]
# Lasting keys that a drained queue may leave: none. These live for a time.
MORTAL = (b":res:", b":win:", b":rate:", b":dead", b":letters", b":wake:")

BUCKETS = [
    Bucket("one", None, 1),
    Bucket("two", None, 2),
    Bucket("slow", Rate(1, per=20)),
    Bucket("pair", Rate(2, per=60)),
    Bucket("both", Rate(1, per=10), 1),
]
MODES: tuple[UniqueMode, ...] = ("drop", "throttle", "debounce", "keep_last")
HOWS: list[How] = ["done", "done", "done", "retry", "demote", "release", "dead", "cancelled"]


@dataclass(frozen=True)
class Theme:
    """How often jobs have what; a theme brings one feature to where it matters."""

    keys: float
    limits: float
    parents: float
    delays: float
    modes: tuple[UniqueMode, ...] = MODES


THEMES = (
    Theme(keys=0.4, limits=0.4, parents=0.4, delays=0.4),
    Theme(keys=0.0, limits=0.95, parents=0.0, delays=0.1),
    Theme(keys=0.9, limits=0.1, parents=0.1, delays=0.3, modes=("keep_last", "debounce")),
    Theme(keys=0.2, limits=0.0, parents=0.7, delays=0.5),
    Theme(keys=0.7, limits=0.8, parents=0.0, delays=0.3, modes=("debounce",)),
)


def some_job(dice: Random, theme: Theme) -> NewJob:
    job_id, body = dice.choice(IDS), dice.randbytes(1)
    if dice.random() < 0.15:
        return NewJob(job_id, body, keep=500.0)
    key = UniqueKey(
        dice.choice(["k0", "k1"]), dice.choice(theme.modes), dice.choice([0.0, 0.0, 30.0])
    )
    parents = dice.sample(IDS, dice.randint(1, 2)) if dice.random() < theme.parents else ()
    limits = dice.sample(BUCKETS, dice.randint(1, 2)) if dice.random() < theme.limits else ()
    delayed = dice.random() < theme.delays
    return NewJob(
        job_id,
        body,
        priority=dice.choice([0, 0, 0, 5, 9]),
        delay=dice.choice([10.0, 40.0]) if delayed else 0.0,
        at=dice.choice([None, None, float(START), START + 50.0]) if delayed else None,
        attempts=dice.choice([1, 2, 3]),
        keep=dice.choice([0.0, 500.0]),
        after=tuple(each for each in parents if each != job_id),
        unique=key if dice.random() < theme.keys else None,
        limits=tuple(limits),
    )


def some_settlement(dice: Random) -> tuple[How, bytes, float, bool]:
    return dice.choice(HOWS), dice.randbytes(1), dice.choice([0.0, 15.0]), dice.random() < 0.7


def some_operation(dice: Random, theme: Theme) -> tuple[Any, ...]:
    kind = dice.choices(
        ["enqueue", "step", "cancel", "requeue", "purge", "pause", "pass"],
        [30, 45, 7, 4, 1, 3, 10],
    )[0]
    match kind:
        case "enqueue":
            return kind, [some_job(dice, theme) for _ in range(dice.randint(1, 4))]
        case "step":
            settled = [some_settlement(dice) for _ in range(dice.randint(0, 4))]
            strange = [dice.choice(IDS)] if dice.random() < 0.15 else []
            how = dice.choice(["", "", "", "", "leave", "lost", "progress"])
            return kind, dice.choice(WORKERS), settled, strange, dice.choice([0, 1, 2, 5]), how
        case "cancel" | "requeue":
            return kind, dice.sample(IDS, dice.randint(1, 3))
        case "purge":
            return kind, None if dice.random() < 0.5 else [dice.choice(IDS)]
        case "pause":
            return kind, dice.random() < 0.3
    return kind, dice.choice([5.0, 10.0, 20.0, 60.0])


@dataclass
class Pair:
    """Both queues, and the time of both."""

    memory: Any
    redis: Any
    client: Any
    time: list[float]
    numbers: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    async def both(self, call: Callable[[Any], Any]) -> Any:
        one, other = await call(self.memory), await call(self.redis)
        assert one == other, f"memory {one}\nredis  {other}"
        return one

    async def apply(self, operation: tuple[Any, ...]) -> None:
        kind, *rest = operation
        self.log.append(f"{operation}")
        if kind == "step":
            await self.step(*rest)
        elif kind == "pass":
            await self.let_pass(rest[0])
        elif kind == "pause":
            await self.both(lambda queue: queue.pause(paused=rest[0]))
        else:
            await self.both(lambda queue: getattr(queue, kind)(rest[0]))

    async def step(
        self, worker: str, settle: list[Any], strange: list[str], free: int, how: str
    ) -> None:
        number = self.numbers[worker] = self.numbers.get(worker, 0) + 1
        held = sorted(await self.memory.held(worker))
        settled = [Settled(job.id, *each) for job, each in zip(held, settle, strict=False)]
        settled += [
            Settled(each, "done") for each in strange if each not in {s.id for s in settled}
        ]
        progress = (
            {job.id: 0.25 * (1 + n) for n, job in enumerate(held)} if how == "progress" else None
        )
        turn = Turn(worker, number, 45.0, settled, free, progress, how == "leave")
        one, other = await self.memory.step(turn), await self.redis.step(turn)
        _same_turn(one, other)
        if how == "lost":
            again = turn._replace(free=0)
            one, other = await self.memory.step(again), await self.redis.step(again)
            _same_turn(one, other)
            assert not one.stale

    async def let_pass(self, seconds: float) -> None:
        self.time[0] += seconds
        await self.client.write("SET", "test:clock", f"{round((START + self.time[0]) * 1e6)}")
        for key in await self.client.read("KEYS", "{ap:q:*"):
            left = await self.client.read("PTTL", key)
            if 0 <= left <= seconds * 1000:
                await self.client.write("DEL", key)
            elif left > 0:
                await self.client.write("PEXPIRE", key, int(left - seconds * 1000))

    async def compare(self) -> None:
        counts = await self.both(lambda queue: queue.counts())
        await self.both(lambda queue: queue.states(IDS))
        await self.both(lambda queue: queue.outcomes(IDS))
        for state in PAGED:
            jobs = await self.both(partial(_all_pages, state))
            assert len(jobs) == getattr(counts, state)
            assert {job.state for job in jobs} <= {state}
        for worker in WORKERS:
            one, other = await self.memory.held(worker), await self.redis.held(worker)
            assert sorted(one) == sorted(other)
        for each in IDS:
            await self.both(methodcaller("progress", each))
        await self.check_limits()

    async def check_limits(self) -> None:
        """Never do more run in a bucket than it allows."""
        running: dict[str, int] = {}
        most: dict[str, int] = {}
        state, holders = self.memory._state, self.memory._machine.holders.values()
        for holder in holders:
            for job in holder.held.values():
                for bucket in job.limits:
                    if bucket.concurrency is not None:
                        running[bucket.key] = running.get(bucket.key, 0) + 1
                        most[bucket.key] = bucket.concurrency
        assert all(running[key] <= most[key] for key in running)
        places = (*state.places.lanes, state.places.scheduled, state.places.suspects)
        others = (state.edges.waiting, state.limits.parked, *(each.held for each in holders))
        assert sum(map(len, places)) + sum(map(len, others)) == len(state.jobs)

    async def drain(self) -> None:
        """Work until nothing is left, then look for what is left over."""
        await self.both(lambda queue: queue.pause(paused=False))
        for _ in range(60):
            for worker in WORKERS:
                number = self.numbers[worker] = self.numbers.get(worker, 0) + 1
                settled = [
                    Settled(job.id, "done") for job in sorted(await self.memory.held(worker))
                ]
                turn = Turn(
                    worker, number, 45.0, settled, 0 if len(self.memory._state.jobs) == 0 else 5
                )
                one, other = await self.memory.step(turn), await self.redis.step(turn)
                _same_turn(one, other)
            if not self.memory._state.jobs:
                break
            await self.let_pass(20.0)
        else:
            raise AssertionError("the queue cannot be drained")
        for worker in WORKERS:
            self.numbers[worker] += 1
            await self.both(partial(_leave, worker, self.numbers[worker]))
        await self.compare()
        for key in await self.client.read("KEYS", "{ap:q:*"):
            assert any(each in key for each in MORTAL), key
            assert await self.client.read("PTTL", key) > 0, key
        state, holders = self.memory._state, self.memory._machine.holders
        edges, unique, limits = state.edges, state.unique, state.limits
        assert not any((state.jobs, holders, edges._kids, edges.ended, edges.waiting))
        assert not any((unique._holders, unique._running, limits._busy, limits._parked))


async def _leave(worker: str, number: int, queue: Any) -> Any:
    return (await queue.step(Turn(worker, number, 45.0, leave=True))).more


def _same_turn(one: Any, other: Any) -> None:
    one = one._replace(cancels=sorted(one.cancels))
    other = other._replace(cancels=sorted(other.cancels))
    assert one == other, f"memory {one}\nredis  {other}"


async def _all_pages(state: Any, queue: Any) -> list[Any]:
    jobs, cursor = [], None
    while True:
        page = await queue.page(state, cursor=cursor, limit=2)
        jobs += page.jobs
        cursor = page.cursor
        if cursor is None:
            return sorted(jobs) if state == "running" else jobs


@contextmanager
def steered(time: list[float]):
    """Give memory and the scripts the test's time."""
    scripts = [each for each in vars(redis_queue).values() if isinstance(each, Script)]
    previous = clock.set_source(
        clock.ClockSource(lambda: time[0], lambda: START + time[0], clock.seeded(1))
    )
    for script in scripts:
        script.__dict__.pop("sha", None)
        script.__dict__["text"] = SHIM + Script(script.name).text
    try:
        yield
    finally:
        clock.set_source(previous)
        for script in scripts:
            script.__dict__.pop("sha", None)
            script.__dict__.pop("text", None)


async def play(url: str, script: list[tuple[Any, ...]]) -> Pair:
    time = [0.0]
    with steered(time):
        async with open_backend(url) as redis, MemoryBackend() as memory:
            assert isinstance(redis, RedisBackend)
            pair = Pair(memory.queue("q"), redis.queue("q"), redis.client, time)
            await redis.client.write("FLUSHALL")
            await pair.let_pass(0.0)
            try:
                for operation in script:
                    await pair.apply(operation)
                    await pair.compare()
                await pair.drain()
            except BaseException as error:
                error.add_note("\n".join(pair.log))
                raise
            finally:
                await redis.client.write("FLUSHALL")
    return pair


def play_seed(url: str, seed: int) -> None:
    dice = Random(seed)
    theme = THEMES[seed % len(THEMES)]
    asyncio.run(play(url, [some_operation(dice, theme) for _ in range(60)]))


@pytest.mark.promise("backends-queue-same-machine")
@pytest.mark.parametrize("first", range(0, 30, 10))
def test_memory_and_redis_are_one_machine(redis_url, first):
    for seed in range(first, first + 10):
        play_seed(redis_url, seed)


def held_back(number: int, unique: UniqueKey | None = None) -> NewJob:
    return NewJob(f"j{number}", b"", limits=(BUCKETS[0],), unique=unique)


DONE = ("done", b"", 0.0, True)
# What chance rarely comes upon: a job that was offered a place goes away without taking it.
OFFERED: list[tuple[Any, ...]] = [
    ("enqueue", [held_back(0), held_back(1, unique=UniqueKey("k0", "debounce")), held_back(2)]),
    ("step", "w0", [], [], 5, ""),
    ("step", "w0", [DONE], [], 0, ""),
]


@pytest.mark.parametrize(
    "goes",
    [
        ("cancel", ["j1"]),
        ("enqueue", [NewJob("j9", b"", delay=10.0, unique=UniqueKey("k0", "debounce"))]),
    ],
    ids=["cancelled", "postponed"],
)
def test_an_offer_that_is_not_taken_goes_to_the_next(redis_url, goes):
    after = [("step", "w1", [], [], 5, ""), ("pass", 20.0), ("enqueue", [held_back(3)])]
    ends: list[tuple[Any, ...]] = [("step", "w1", [DONE], [], 1, "")] * 3
    asyncio.run(play(redis_url, [*OFFERED, goes, *after, *ends]))


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", sorted({each.version for each in installed_binaries()}))
def test_memory_and_redis_are_one_machine_at_length(version):
    with RedisServer(version=version) as server:
        for seed in range(1_000, 1_300):
            play_seed(server.url, seed)
