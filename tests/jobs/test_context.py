"""The context of a job: progress within its bounds, hops that grow from job to job."""

from __future__ import annotations

import math

import pytest

from aiopatterns.core.context import Context as BaseContext
from aiopatterns.jobs.context import Context, enter_hops, hops_onward, leave_hops


def context(report=lambda fraction: None):
    return Context(job_id="1", name="f", report=report)


async def test_progress_is_reported():
    told: list[float] = []
    ctx = context(told.append)
    for fraction in (0.0, 0.25, 1, 1.0):
        await ctx.progress(fraction)
    assert told == [0.0, 0.25, 1, 1.0]


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, math.inf, "0.5", None, True])
async def test_progress_outside_of_its_bounds_is_refused(fraction):
    told: list[float] = []
    with pytest.raises((ValueError, TypeError), match=r"fraction must be between 0\.0 and 1\.0"):
        await context(told.append).progress(fraction)
    assert not told


def test_it_is_a_context_of_the_house():
    ctx = context()
    assert isinstance(ctx, BaseContext)
    assert (ctx.attempt, ctx.deadline, ctx.correlation_id, ctx.hops, ctx.state) == (
        1,
        None,
        None,
        0,
        {},
    )
    assert ctx.remaining is None


def test_hops_grow_from_job_to_job():
    assert hops_onward() == 0
    outer = enter_hops(0)
    assert hops_onward() == 1
    inner = enter_hops(7)
    assert hops_onward() == 8
    leave_hops(inner)
    assert hops_onward() == 1
    leave_hops(outer)
    assert hops_onward() == 0
