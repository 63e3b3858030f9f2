"""Pipelines as their users see them: chains, order, failures, and nothing lost on the way."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopatterns.core.clock import rng, sleep
from aiopatterns.flow.channel import Channel
from aiopatterns.flow.executors import Inline, Threads
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.flow.run import PipelineRun
from aiopatterns.flow.stage import DeadItem, DeadLetter
from aiopatterns.flow.tally import PipelineReport, StageStatistics
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import (
    InjectedError,
    Trial,
    cancel_everywhere,
    explore,
    fail_everywhere,
    leak_guard,
    simulate,
)


async def collect(pipeline):
    async with pipeline.open() as results:
        return [result async for result in results]


async def double(x):
    return 2 * x


async def jitter():
    """Wait a moment that the seed decides."""
    await sleep(rng().random())


def balanced(report: PipelineReport, *, ended: bool = False) -> None:
    """The accounts of every stage and of the whole add up."""
    records: list[StageStatistics | PipelineReport] = [*report.stages, report.output, report]
    for each in records:
        parts = each.processed + each.failed + each.cancelled + each.queued + each.in_flight
        assert each.accepted == parts, each
        assert min(each.processed, each.failed, each.cancelled, each.queued, each.in_flight) >= 0
        if ended:
            assert each.queued == each.in_flight == 0, each


# ------------------------------------------------------------------------------------ chains


async def test_the_whole_chain_of_the_contract():
    dead: list[DeadItem] = []
    saved: list[int] = []

    async def bury(item):
        dead.append(item)

    async def load(batch):
        saved.extend(batch)

    def parse(line):
        return int(line)

    pipeline = (
        Pipeline(["1", "2", "x", "3", "4"], name="etl")
        .map(parse, workers=4, retry=Retry(on=OSError), on_error=DeadLetter(bury))
        .filter(lambda x: x != 2)
        .flat_map(lambda x: [x, -x])
        .map(double, key=abs, workers=8)
        .map(lambda x: x + 1, executor=Inline(2))
        .batch(4, within=0.2)
        .map(load, ordered=False)
    )
    report = await pipeline.run()
    assert sorted(saved) == sorted([3, -1, 7, -5, 9, -7])
    assert [(each.item, each.stage, each.attempts) for each in dead] == [("x", "parse", 1)]
    assert isinstance(dead[0].error, ValueError)
    assert [stage.name for stage in report.stages] == [
        "parse",
        "<lambda>",
        "<lambda>",
        "double",
        "<lambda>",
        "batch",
        "load",
    ]
    parse_stage = report.stages[0]
    assert (parse_stage.processed, parse_stage.failed, parse_stage.queued) == (4, 1, 0)
    assert parse_stage.p50 is not None
    assert parse_stage.p99 is not None
    assert (report.name, report.read, report.delivered, report.failed) == ("etl", 5, 2, 1)
    assert report.elapsed >= 0
    balanced(report, ended=True)


async def test_sources_of_all_three_kinds():
    async def agen():
        for x in range(3):
            yield x

    channel = Channel[int](3)
    for x in range(3):
        channel.send_nowait(x)
    channel.close()
    for source in (range(3), (x for x in range(3)), agen(), channel):
        assert await collect(Pipeline(source).map(double)) == [0, 2, 4]


async def test_sinks_of_both_kinds_and_none():
    taken: list[int] = []

    async def take(x):
        taken.append(x)

    channel = Channel[int](5)
    pipeline = Pipeline(range(3)).map(double)
    assert (await pipeline.run(take)).delivered == 3
    assert (await pipeline.run(into=channel)).delivered == 3
    assert (await pipeline.run()).delivered == 3
    assert taken == [0, 2, 4]
    assert await channel.receive_many(5) == [0, 2, 4]
    channel.send_nowait(9)  # the stream stays its owner's


async def test_a_pipeline_without_stages_passes_everything():
    assert await collect(Pipeline("abc")) == ["a", "b", "c"]
    assert await collect(Pipeline(())) == []
    report = await Pipeline(()).map(double, workers=2).batch(3).run()
    assert report.read == report.accepted == 0


async def test_verbs_take_functions_of_every_colour():
    async def odd(x):
        return x % 2

    async def twice(x):
        return [x, x]

    async def agen(x):
        yield x
        yield x

    def gen(x):
        yield x
        yield x

    class Twice:
        def __call__(self, x):
            return x, x

    numbers = Pipeline(range(4))
    for filtered in (numbers.filter(odd), numbers.filter(lambda x: x % 2)):
        for fn in (twice, agen, gen, Twice(), lambda x: iter([x, x])):
            assert await collect(filtered.flat_map(fn)) == [1, 1, 3, 3]
            assert await collect(filtered.flat_map(fn, workers=2)) == [1, 1, 3, 3]
    assert await collect(numbers.map(lambda x: double(x + 0))) == [0, 2, 4, 6]
    assert await collect(numbers.map(partial(pow, 2))) == [1, 2, 4, 8]


async def test_a_pipeline_is_immutable_and_can_be_run_again():
    base = Pipeline([1, 2, 3])
    doubled = base.map(double)
    both = doubled.filter(lambda x: x > 2)
    assert await collect(base) == [1, 2, 3]
    assert await collect(doubled) == await collect(doubled) == [2, 4, 6]
    assert await collect(both) == [4, 6]


async def test_names():
    rows = Pipeline([1]).map(double).named("twice").map(partial(partial(max, 0))).batch(2)
    pipeline = rows.named("rows").broadcast(lambda p: p.map(len)).named("all")
    report = await pipeline.run()
    assert [each.name for each in report.stages] == ["twice", "max", "rows", "all", "len"]
    assert repr(pipeline) == ("<Pipeline 'pipeline'.map(twice).map(max).batch(rows).branches(all)>")


def test_mermaid():
    pipeline = (
        Pipeline([1], name='"x"')
        .map(double, workers=3)
        .broadcast(lambda p: p.batch(5, within=2).map(len), lambda p: p)
        .filter(lambda x: x)
        .batch(7)
    )
    assert pipeline.to_mermaid() == (
        "flowchart LR\n"
        '    source(["#quot;x#quot;"])\n'
        '    s1["double x3"]\n'
        "    source --> s1\n"
        '    s2["broadcast"]\n'
        "    s1 --> s2\n"
        '    s3["batch (5, 2 s)"]\n'
        "    s2 --> s3\n"
        '    s4["len"]\n'
        "    s3 --> s4\n"
        '    s5["#lt;lambda#gt;"]\n'
        "    s4 --> s5\n"
        "    s2 --> s5\n"
        '    s6["batch (7)"]\n'
        "    s5 --> s6\n"
        '    output(["output"])\n'
        "    s6 --> output\n"
    )


# ------------------------------------------------------------------------------- bad input


anything: Any = Pipeline
dead_letter: Any = DeadLetter
empty: Any = Pipeline([])


def put_aside(dead):
    """Gives nothing to await."""


class Doubler:
    async def __call__(self, x):
        return 2 * x


BAD = [
    (lambda: anything(3), TypeError, "source must be an iterable"),
    (lambda: anything([], capacity=0), ValueError, "capacity must be"),
    (lambda: anything([], capacity=1.5), TypeError, "capacity must be"),
    (lambda: anything([], name=""), ValueError, "name must be"),
    (lambda: empty.map(3), TypeError, "fn must be a function"),
    (lambda: empty.filter(None), TypeError, "predicate must be a function"),
    (lambda: empty.flat_map("x"), TypeError, "fn must be a function"),
    (lambda: empty.map(double, workers=0), ValueError, "workers must be"),
    (lambda: empty.map(double, workers=True), TypeError, "workers must be"),
    (lambda: empty.map(double, key=3), TypeError, "key must be a function"),
    (lambda: empty.map(double, key=double, workers=2), TypeError, "key must be a plain function"),
    (lambda: empty.map(double, ordered=1), TypeError, "ordered must be True or False"),
    (lambda: empty.map(double, retry=3), TypeError, "retry must be a Retry or None"),
    (lambda: empty.map(double, timeout=0), ValueError, "timeout must be"),
    (lambda: empty.map(double, timeout=float("nan")), ValueError, "timeout must be"),
    (lambda: empty.map(double, on_error="ignore"), ValueError, "'stop', 'skip' or a DeadLetter"),
    (lambda: empty.map(double, on_error=None), TypeError, "on_error must be 'stop'"),
    (lambda: dead_letter(3), TypeError, "sink must be an async function"),
    (lambda: dead_letter(put_aside), TypeError, "sink must be an async function"),
    (lambda: empty.map(double, executor=3), TypeError, "executor must be an Executor"),
    (lambda: empty.map(double, executor=Threads(1)), TypeError, "double is asynchr"),
    (lambda: empty.map(Doubler(), executor=Threads(1)), TypeError, "Doubler is asynchr"),
    (lambda: empty.batch(0), ValueError, "size must be"),
    (lambda: empty.batch(2.5), TypeError, "size must be"),
    (lambda: empty.batch(2, within=0), ValueError, "within must be"),
    (empty.broadcast, ValueError, "branches must be at least one"),
    (lambda: empty.broadcast(3), TypeError, "branches must be a function"),
    (lambda: empty.broadcast(lambda p: 3), TypeError, "a branch must return"),
    (lambda: empty.broadcast(lambda p: Pipeline([])), ValueError, "is another one"),
    (lambda: empty.named("x"), ValueError, "named() names the last stage"),
    (lambda: empty.map(double).named(""), ValueError, "name must be"),
    (lambda: empty.map(double).named(None), TypeError, "name must be"),
]


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize(("make", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.promise("flow-bad-input")
async def test_a_bad_sink_starts_nothing():
    pulled: list[int] = []

    def source():
        pulled.append(1)
        yield 1

    pipeline: Any = Pipeline(source())
    with pytest.raises(TypeError, match="into must be an async function"):
        await pipeline.run(into=3)
    assert pulled == []


# ------------------------------------------------------------------------------- properties

VERBS = ("map", "filter", "flat_map", "keyed", "batch", "unbatch")


def plus(x):
    return x + 1


async def slow_plus(x):
    await jitter()
    return x + 1


async def flip(x):
    await jitter()
    return [x, -x] if x % 3 else []


def build(pipeline, expected, verbs, workers):
    """Add the same steps to a pipeline and to a plain list."""
    for verb, width in zip(verbs, workers, strict=False):
        if verb == "map":
            pipeline = pipeline.map(slow_plus if width > 1 else plus, workers=width)
            expected = [x + 1 for x in expected]
        elif verb == "filter":
            pipeline = pipeline.filter(lambda x: x % 2, workers=width)
            expected = [x for x in expected if x % 2]
        elif verb == "flat_map":
            pipeline = pipeline.flat_map(flip, workers=width)
            expected = [y for x in expected for y in ([x, -x] if x % 3 else [])]
        elif verb == "keyed":
            pipeline = pipeline.map(slow_plus, key=lambda x: x % 3, workers=width)
            expected = [x + 1 for x in expected]
        else:
            size = 3 if verb == "batch" else 5
            pipeline = pipeline.batch(size).flat_map(lambda batch: batch, workers=width)
    return pipeline, expected


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.integers(-50, 50), max_size=30),
    verbs=st.lists(st.sampled_from(VERBS), max_size=5),
    workers=st.lists(st.integers(1, 4), min_size=5, max_size=5),
    capacity=st.integers(1, 8),
    seed=st.integers(0, 10_000),
)
def test_a_random_chain_equals_a_list_comprehension(items, verbs, workers, capacity, seed):
    pipeline, expected = build(Pipeline(items, capacity=capacity), items, verbs, workers)

    async def scenario():
        async with leak_guard(), pipeline.open() as results:
            assert [result async for result in results] == expected
            balanced(results.statistics(), ended=True)
            assert results.statistics().delivered == len(expected)

    simulate(scenario, seed=seed)


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.integers(0, 20), max_size=40),
    workers=st.integers(1, 6),
    capacity=st.integers(1, 8),
    ordered=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_keys_keep_their_order_and_run_one_at_a_time(items, workers, capacity, ordered, seed):
    indexed = list(enumerate(items))
    running: set[int] = set()

    async def work(pair):
        key = pair[1] % 4
        assert key not in running
        assert len(running) < workers
        running.add(key)
        await jitter()
        running.remove(key)
        return pair

    pipeline = Pipeline(indexed, capacity=capacity).map(
        work, key=lambda pair: pair[1] % 4, workers=workers, ordered=ordered
    )
    got = simulate(lambda: collect(pipeline), seed=seed)
    assert got == indexed if ordered else sorted(got) == indexed
    by_key = defaultdict(list)
    for index, item in got:
        by_key[item % 4].append(index)
    assert all(each == sorted(each) for each in by_key.values())


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.sampled_from([0.0, 0.1, 0.5, 2.0]), max_size=30),
    size=st.integers(1, 6),
    within=st.sampled_from([None, 0.3, 1.0]),
    slow=st.sampled_from([0.0, 0.7]),
    seed=st.integers(0, 10_000),
)
def test_batches_hold_everything_once_and_in_order(gaps, size, within, slow, seed):
    async def source():
        for number, gap in enumerate(gaps):
            await sleep(gap)
            yield number

    async def scenario():
        batches = []

        async def take(batch):
            await sleep(slow)
            batches.append(batch)

        await Pipeline(source()).batch(size, within=within).run(take)
        return batches

    batches = simulate(scenario, seed=seed)
    assert [x for batch in batches for x in batch] == list(range(len(gaps)))
    assert all(1 <= len(batch) <= size for batch in batches)
    if within is None:
        assert all(len(batch) == size for batch in batches[:-1])


# ------------------------------------------------------------- cancellation, faults, seeds


def everything(dead, saved, fault=lambda: None):
    """A pipeline with one of everything, whose functions suspend."""

    async def source():
        for x in range(12):
            fault()
            await sleep(0.01)
            yield x

    async def parse(x):
        fault()
        await sleep(0.01)
        if x == 5:
            raise LookupError(x)
        return x

    attempts: defaultdict[int, int] = defaultdict(int)

    async def flaky(x):
        fault()
        attempts[x] += 1
        await sleep(0.01)
        if x % 4 == 1 and attempts[x] < 2:
            raise OSError(x)
        return x

    def key(x):
        fault()
        return x % 3

    async def several(x):
        fault()
        yield x
        await sleep(0)
        yield -x

    async def bury(item):
        fault()
        await sleep(0.01)
        dead.append(item.item)

    async def save(x):
        fault()
        await sleep(0.01)
        saved.append(x)

    retry = Retry(on=OSError, attempts=3, backoff=Constant(0.02))
    return (
        Pipeline(source(), capacity=2)
        .map(parse, on_error=DeadLetter(bury))
        .map(flaky, workers=3, key=key, retry=retry, timeout=1.0)
        .flat_map(several)
        .broadcast(
            lambda p: p.batch(3, within=0.02).flat_map(lambda b: b, workers=2),
            lambda p: p.filter(lambda x: fault() or x > 0, workers=2, ordered=False),
        )
        .map(save, workers=2, executor=Inline(2))
    )


async def run_watched(pipeline, reports):
    """Run and read, checking the accounts at every result."""
    run = pipeline.open()
    reports.append(run)
    async with run as results:
        async for _ in results:
            balanced(results.statistics())


def check_runs(runs):
    for run in runs:
        balanced(run.statistics(), ended=True)


@pytest.mark.promise(
    "flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout", "flow-no-leaks"
)
def test_cancelled_everywhere():
    def factory():
        runs: list[PipelineRun[int]] = []
        return Trial(run_watched(everything([], []), runs), partial(check_runs, runs))

    cancel_everywhere(factory, minimum=10)


@pytest.mark.promise("flow-cancel-native", "flow-no-leaks")
def test_cancelled_twice_everywhere():
    def factory():
        runs: list[PipelineRun[int]] = []
        small = Pipeline(range(3), capacity=1).map(double, workers=2).batch(2, within=1.0)
        return Trial(run_watched(small, runs), partial(check_runs, runs))

    cancel_everywhere(factory, kinds=["native-twice"], minimum=3)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
def test_run_cancelled_everywhere():
    def factory():
        taken = []

        async def take(x):
            await sleep(0.01)
            taken.append(x)

        def check():
            assert taken == list(range(len(taken)))

        return Trial(Pipeline(range(5)).map(double).map(lambda x: x // 2).run(take), check)

    cancel_everywhere(factory, minimum=2)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-no-leaks")
@pytest.mark.parametrize("kind", ["native", "scope"])
def test_cancelled_at_every_moment(kind):
    """Not only where the caller waits: at every moment of what goes on inside."""

    async def scenario(after):
        run: PipelineRun[int] = PipelineRun(everything([], [])._plan, reads=False)

        async def drive():
            async with run:
                await run.finished()

        async with leak_guard():
            if kind == "native":
                task = asyncio.ensure_future(drive())
                await sleep(after)
                task.cancel()
                await asyncio.wait([task])
            else:
                with anyio.move_on_after(after):
                    await drive()
        balanced(run.statistics(), ended=True)
        return run.statistics().delivered

    delivered = [simulate(partial(scenario, step * 0.005), seed=step) for step in range(1, 80)]
    assert delivered[0] == 0
    assert delivered[-1] == 32


@pytest.mark.promise("flow-fail-everywhere", "flow-no-leaks")
def test_fails_everywhere():
    def factory(fault):
        runs: list[PipelineRun[int]] = []

        async def work():
            dead: list[int] = []
            saved: list[int] = []
            await run_watched(everything(dead, saved, fault), runs)
            # Only a fault whose item is a dead letter lets the run end well.
            assert len(set(map(abs, saved))) + len(dead) == 12

        return Trial(work(), partial(check_runs, runs))

    fail_everywhere(factory, minimum=40)


@pytest.mark.promise("flow-seeds", "flow-conservation")
def test_two_hundred_seeds():
    async def scenario():
        dead: list[int] = []
        saved: list[int] = []
        runs: list[PipelineRun[int]] = []
        async with leak_guard():
            await run_watched(everything(dead, saved), runs)
        report = runs[0].statistics()
        balanced(report, ended=True)
        kept = [x for x in range(12) if x != 5]
        assert dead == [5]
        assert sorted(saved) == sorted([x for x in kept for x in (x, -x)] + kept[1:])
        assert report.read == 12
        assert report.delivered == len(saved)
        assert report.stages[1].name == "flaky"
        assert report.stages[1].processed == 11

    explore(scenario, range(200))


@pytest.mark.promise("flow-conservation")
def test_the_accounts_add_up_at_every_turn_of_the_loop():
    """A spy looks in every turn, and what it sees of running functions is true."""
    running = 0
    most = 0

    async def work(x):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await jitter()
        running -= 1
        if x % 5 == 0:
            raise InjectedError
        return x

    async def scenario():
        nonlocal most
        most = 0
        pipeline = (
            Pipeline(range(40), capacity=3)
            .map(work, workers=3, on_error="skip")
            .batch(4)
            .flat_map(lambda batch: batch)
        )
        async with pipeline.open() as results, anyio.create_task_group() as tasks:

            async def spy():
                while True:
                    report = results.statistics()
                    balanced(report)
                    assert report.stages[0].in_flight == running <= 3
                    first, batch = report.stages[:2]
                    assert first.accepted == report.read
                    assert batch.accepted == first.processed
                    await sleep(0.05)

            tasks.start_soon(spy)
            got = [result async for result in results]
            tasks.cancel_scope.cancel()
        assert got == [x for x in range(40) if x % 5]
        assert most == 3

    explore(scenario, range(20))


async def test_a_native_cancel_leaves_nothing_behind():
    async with leak_guard():
        task = asyncio.ensure_future(collect(Pipeline(range(10)).map(sleep_for_ever, workers=3)))
        await sleep(0.001)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()


async def sleep_for_ever(_):
    await sleep(3600)
