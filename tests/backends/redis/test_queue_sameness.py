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
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aiopatterns.backends import open_backend
from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.queue import Bucket, NewJob, Settled, Turn, UniqueKey
from aiopatterns.backends.redis import queue as redis_queue
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
IDS = [f"j{n}" for n in range(9)]
WORKERS = ["w0", "w1", "w2"]
# Lasting keys that a drained queue may leave: none. These live for a time.
MORTAL = (b":res:", b":win:", b":rate:", b":dead", b":letters", b":wake:")

buckets = st.sampled_from(
    [
        Bucket("one", None, 1),
        Bucket("two", None, 2),
        Bucket("slow", Rate(1, per=20)),
        Bucket("pair", Rate(2, per=60)),
        Bucket("both", Rate(1, per=10), 1),
    ]
)
uniques = st.tuples(
    st.sampled_from(["k0", "k1"]),
    st.sampled_from(["drop", "throttle", "debounce", "keep_last"]),
    st.sampled_from([0.0, 30.0]),
).map(lambda fields: UniqueKey(*fields))
new_jobs = st.tuples(
    st.sampled_from(IDS),
    st.binary(max_size=3),
    st.sampled_from([0, 0, 0, 5, 9]),  # priority
    st.sampled_from([0.0, 0.0, 0.0, 10.0, 40.0]),  # delay
    st.sampled_from([None, None, None, float(START), START + 50.0]),  # at
    st.sampled_from([1, 2, 3]),  # attempts
    st.sampled_from([0.0, 500.0]),  # keep
    st.lists(st.sampled_from(IDS), max_size=2).map(tuple),  # after
    st.none() | uniques,
    st.lists(buckets, max_size=2, unique_by=lambda each: each.key).map(tuple),
).map(lambda fields: _not_after_itself(NewJob(*fields)))
plain_jobs = st.tuples(st.sampled_from(IDS), st.binary(max_size=3)).map(
    lambda fields: NewJob(*fields, keep=500.0)
)
settlements = st.tuples(
    st.sampled_from(["done", "done", "done", "retry", "release", "dead", "cancelled"]),
    st.binary(max_size=2),
    st.sampled_from([0.0, 15.0]),
    st.sampled_from([True, True, False]),
)
steps = st.tuples(
    st.just("step"),
    st.sampled_from(WORKERS),
    st.lists(settlements, max_size=4),
    st.lists(st.sampled_from(IDS), max_size=1),
    st.sampled_from([0, 1, 2, 5]),
    st.sampled_from(["", "", "", "", "leave", "lost", "progress"]),
)
operations = st.one_of(
    st.tuples(st.just("enqueue"), st.lists(new_jobs, min_size=1, max_size=4)),
    st.tuples(st.just("enqueue"), st.lists(plain_jobs, min_size=1, max_size=4)),
    steps,
    steps,
    steps,
    st.tuples(
        st.just("cancel"), st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True)
    ),
    st.tuples(st.just("requeue"), st.lists(st.sampled_from(IDS), min_size=1, max_size=3)),
    st.tuples(st.just("purge"), st.none() | st.lists(st.sampled_from(IDS), max_size=2)),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([5.0, 10.0, 20.0, 60.0])),
)


def _not_after_itself(job: NewJob) -> NewJob:
    return job._replace(after=tuple(each for each in job.after if each != job.id))


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
            jobs = await self.both(lambda queue, state=state: _all_pages(queue, state))
            assert len(jobs) == getattr(counts, state)
            assert {job.state for job in jobs} <= {state}
        for worker in WORKERS:
            one, other = await self.memory.held(worker), await self.redis.held(worker)
            assert sorted(one) == sorted(other)
        for each in IDS:
            await self.both(lambda queue, each=each: queue.progress(each))
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
            await self.both(
                lambda queue, worker=worker: _leave(queue, worker, self.numbers[worker])
            )
        await self.compare()
        for key in await self.client.read("KEYS", "{ap:q:*"):
            assert any(each in key for each in MORTAL), key
            assert await self.client.read("PTTL", key) > 0, key
        state, holders = self.memory._state, self.memory._machine.holders
        edges, unique, limits = state.edges, state.unique, state.limits
        assert not any((state.jobs, holders, edges._kids, edges.ended, edges.waiting))
        assert not any((unique._holders, unique._running, limits._busy, limits._parked))


async def _leave(queue: Any, worker: str, number: int) -> Any:
    return (await queue.step(Turn(worker, number, 45.0, leave=True))).more


def _same_turn(one: Any, other: Any) -> None:
    one = one._replace(cancels=sorted(one.cancels))
    other = other._replace(cancels=sorted(other.cancels))
    assert one == other, f"memory {one}\nredis  {other}"


async def _all_pages(queue: Any, state: Any) -> list[Any]:
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


@pytest.mark.promise("backends-queue-same-machine")
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(st.lists(operations, max_size=40))
def test_memory_and_redis_are_one_machine(redis_url, script):
    asyncio.run(play(redis_url, script))
