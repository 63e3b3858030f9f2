"""Fused stages: one item at a time, outputs one by one, failures where they belong."""

from __future__ import annotations

from contextvars import ContextVar

import pytest

from aiopatterns.core.clock import sleep, yield_now
from aiopatterns.flow.fusion import Flat, Fused, Step
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.flow.stage import Node, Stage
from aiopatterns.flow.tally import Tally


class Target(Node):
    def __init__(self, log=None):
        self.tally = Tally("target")
        self.items: list[object] = []
        self.log = self.items if log is None else log
        self.ended = False

    async def push(self, item):
        await yield_now()
        self.log.append(item)

    async def end(self):
        self.ended = True


def step(verb, fn, **options):
    return Step(Stage(verb=verb, fn=fn, name=fn.__name__, **options))


async def test_steps_run_in_order_and_count():
    def add(x):
        return x + 1

    async def odd(x):
        return x % 2

    target = Target()
    steps = [step("map", add), step("filter", odd), step("map", str)]
    fused = Fused(steps, target)
    for x in range(300):
        await fused.push(x)
    await fused.end()
    assert target.items == [str(x) for x in range(1, 301) if x % 2]
    assert target.ended
    assert [each.done for each in steps] == [300, 300, 150]
    assert fused.tally is steps[0]
    assert steps[0].latency.count == 256 + 44 // 8 + 1


async def test_a_failure_in_a_step_keeps_the_item_from_the_next():
    def fail(x):
        if x == 1:
            raise LookupError(x)
        return x

    target = Target()
    steps = [step("map", fail, on_error="skip"), step("map", abs)]
    fused = Fused(steps, target)
    for x in range(3):
        await fused.push(x)
    assert target.items == [0, 2]
    assert (steps[0].done, steps[0].failed, steps[1].done) == (2, 1, 2)

    stopping = step("map", fail)
    with pytest.raises(LookupError) as caught:
        await Fused([stopping], target).push(1)
    assert caught.value.__notes__ == ["in stage 'fail', item 0"]
    assert stopping.failed == 1


async def test_an_output_is_passed_on_before_the_next_is_asked_for():
    log = []

    async def agen(x):
        for y in range(2):
            log.append(f"made {y}")
            yield y

    flat = Flat(step("flat_map", agen), Target(log))
    await flat.push("x")
    assert log == ["made 0", 0, "made 1", 1]


async def test_endless_outputs_give_the_loop_its_turns():
    def count(x):
        while True:
            yield x

    async def endless(x):
        while True:
            yield x

    for fn in (count, endless, lambda x: [x] * 1_000_000):
        async with Pipeline([1]).flat_map(fn).filter(lambda x: x > 1).open():
            await sleep(0)


async def test_long_lists_and_streams_pass_whole():
    async def agen(x):
        for y in range(200):
            yield y

    for fn in (lambda x: list(range(200)), agen):
        async with Pipeline([1]).flat_map(fn).open() as results:
            assert [x async for x in results] == list(range(200))


async def test_a_stream_that_fails_half_way_has_passed_on_what_came_before():
    def gen(x):
        yield x
        if x == 1:
            raise LookupError(x)

    flat_step = step("flat_map", gen, on_error="skip")
    target = Target()
    flat = Flat(flat_step, target)
    for x in range(3):
        await flat.push(x)
    await flat.end()
    assert target.items == [0, 1, 2]
    assert (flat_step.done, flat_step.failed) == (2, 1)
    assert target.ended


async def test_what_is_no_iterable_is_a_failure_of_the_item():
    flat_step = step("flat_map", abs, on_error="skip")
    await Flat(flat_step, Target()).push(3)
    assert flat_step.failed == 1
    with pytest.raises(TypeError, match="what the function of flat_map gives must be an iterable"):
        await Flat(step("flat_map", abs), Target()).push(3)


async def test_a_stream_is_closed_when_what_follows_fails():
    closed = []

    async def agen(x):
        try:
            yield 1
            yield 2
        finally:
            closed.append(x)

    def fail(_):
        raise LookupError

    flat = Flat(step("flat_map", agen), Fused([step("map", fail)], Target()))
    with pytest.raises(LookupError):
        await flat.push("x")
    assert closed == ["x"]


async def test_calls_are_timed_after_the_first_ones_too():
    pipeline = Pipeline(range(300)).flat_map(lambda x: (x,))
    report = await pipeline.run()
    assert report.stages[0].processed == 300
    assert report.stages[0].p99 is not None


async def test_a_stage_behind_a_filter_times_its_own_items():
    pipeline = Pipeline(range(900)).filter(lambda x: x > 300 and x % 8 == 1).map(abs)
    assert (await pipeline.run()).stages[1].p50 is not None


@pytest.mark.parametrize("kind", [list, iter, tuple])
async def test_what_one_output_sets_is_not_seen_by_the_next(kind):
    variable = ContextVar("variable", default="clean")
    seen = []

    def mark(x):
        seen.append(variable.get())
        variable.set(x)

    await Pipeline("ab").flat_map(lambda x: kind([x, x])).map(mark).run()
    assert seen == ["clean"] * 4


async def test_a_plain_generator_is_closed_when_what_follows_fails():
    closed = []

    def outputs(x):
        try:
            yield from range(9)
        finally:
            closed.append(x)

    flat = Flat(step("flat_map", outputs), Fused([step("map", lambda x: 1 // (2 - x))], Target()))
    with pytest.raises(ZeroDivisionError) as caught:  # whose traceback holds the generator
        await flat.push("x")
    assert caught.value.__notes__
    assert closed == ["x"]


async def test_an_iterator_that_ends_before_it_is_awaited_ends_its_item_only():
    class Once:
        def __init__(self, x):
            self.left = [x]

        def __aiter__(self):
            return self

        def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            return self.give()

        async def give(self):
            return self.left.pop()

    target = Target()
    flat = Flat(step("flat_map", Once), target)
    await flat.push("a")
    await flat.push("b")
    assert target.items == ["a", "b"]
