"""Batches by number and by time."""

from __future__ import annotations

import anyio

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.testing import simulate


async def run(source, size, within, take=None):
    batches = []

    async def keep(batch):
        batches.append((round(monotonic() - began, 3), batch))
        if take is not None:
            await take(batch)

    began = monotonic()
    report = await Pipeline(source).batch(size, within=within).run(keep)
    return batches, report


async def at(*times):
    now = 0.0
    for number, when in enumerate(times):
        await sleep(when - now)
        now = when
        yield number


def test_full_batches_go_at_once_and_the_rest_at_the_end():
    batches, report = simulate(lambda: run(range(7), 3, None))
    assert [batch for _, batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert (report.stages[0].accepted, report.stages[0].processed) == (7, 7)


def test_the_timer_starts_with_the_first_item_of_its_batch():
    batches, report = simulate(lambda: run(at(0, 1, 5, 5.5, 9), 10, 2.0))
    assert batches == [(2.0, [0, 1]), (7.0, [2, 3]), (9.0, [4])]
    assert abs(report.stages[0].p50 - 2.0) < 0.05


def test_a_full_batch_disarms_its_timer():
    batches, _ = simulate(lambda: run(at(0, 0.5, 1.0, 2.4, 9), 3, 2.0))
    assert batches == [(1.0, [0, 1, 2]), (4.4, [3]), (9.0, [4])]


def test_a_due_batch_keeps_filling_while_the_consumer_is_busy():
    async def slow(batch):
        await sleep(10)

    batches, _ = simulate(lambda: run(at(0, 1, 2, 3, 4, 5, 6), 4, 0.5, slow))
    assert batches == [(0.5, [0]), (10.5, [1, 2, 3, 4]), (20.5, [5, 6])]


def test_waiting_items_are_queued():
    async def scenario():
        async with Pipeline(at(0, 1, 2, 30)).batch(10).open() as results:
            await sleep(5)
            stage = results.statistics().stages[0]
            assert (stage.accepted, stage.queued, stage.processed) == (3, 3, 0)
            assert [batch async for batch in results] == [[0, 1, 2, 3]]

    simulate(scenario)


def test_an_armed_timer_is_disarmed_when_the_run_is_left():
    async def scenario():
        with anyio.move_on_after(1):
            await Pipeline(at(0, 60)).batch(5, within=600).run()

    simulate(scenario)
