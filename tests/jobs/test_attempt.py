"""One attempt, with what it says taken down."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any, cast

import pytest

from aiopatterns.core.clock import Alarms, monotonic, sleep
from aiopatterns.core.codec import Header
from aiopatterns.core.context import correlation_id, remaining
from aiopatterns.jobs import Context, JobLost, JobQueue
from aiopatterns.jobs.attempt import Attempt
from aiopatterns.jobs.envelope import Envelope
from aiopatterns.jobs.hold import Cut, Hold
from aiopatterns.jobs.shop import Shop
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry, Until
from aiopatterns.testing import capture_events, simulate


class Loop:
    """What an attempt sees of a step loop."""

    def __init__(self, *, ours: bool = True) -> None:
        self.ours = ours
        self.said: list[tuple[str, str, float]] = []
        self.told: list[float] = []
        self.retries: list[float] = []
        self.ahead: float | None = 1_000.0

    def settle(self, hold, how, data, *, delay, counted) -> bool:
        if self.ours:
            self.said.append((hold.id, how, delay))
        return self.ours

    def note_retry(self, hold, delay) -> None:
        self.retries.append(delay)

    def tell(self, hold, fraction) -> None:
        self.told.append(fraction)

    def server_now(self) -> float | None:
        return None if self.ahead is None else self.ahead + monotonic()


def make(jobs: JobQueue, job, *, loop=None, header=None, numbers=(1,), attempt=1) -> Attempt:
    loop = loop or Loop()
    calls = [
        (
            Hold(loop, str(each), b"", attempt, alone=False),
            Envelope(job.name, [each], {}, 1_000.0, header or Header()),
        )
        for each in numbers
    ]
    return Attempt(Shop(jobs, {}), job, calls, copy_context())


def queue(**options):
    jobs = JobQueue("q")

    @jobs.job(name="work", **options)
    async def work(ctx: Context, number: int) -> int:
        await ctx.progress(0.5)
        return number

    return jobs, work


def test_a_value_is_settled_and_counted():
    async def main() -> None:
        jobs, work = queue()
        attempt = make(jobs, work)
        (hold, _), *_ = attempt.calls
        halted: list[int] = []
        value = await attempt.begin(lambda: halted.append(1), Alarms)
        assert hold.at is attempt
        attempt.returned(value)
        assert hold.at is None
        loop = hold.turns
        assert (loop.said, loop.told) == ([("1", "done", 0.0)], [0.5])
        assert attempt.shop.ledger.processed == 1
        hold.interrupt(Cut.CANCEL)
        attempt.interrupt(hold, Cut.CANCEL)
        assert halted == [], "it has ended"

    simulate(main)


def test_what_travels_with_the_job_is_bound():
    async def main() -> None:
        jobs = JobQueue("q")
        seen = []

        @jobs.job(name="look", timeout=9.0)
        async def look(ctx: Context, number: int) -> None:
            seen.append((correlation_id(), remaining(), ctx.remaining, ctx.hops))

        for left, expected in ((None, 9.0), (30.0, 9.0), (4.0, 4.0)):
            header = Header(correlation_id="c", remaining=left, sent_at=1_000.0, hops=2)
            attempt = make(jobs, look, header=header)
            timers: dict[float, Alarms] = {}
            work = attempt.begin(
                lambda: None, lambda seconds: timers.setdefault(seconds, Alarms(seconds))
            )
            try:
                attempt.variables.run(work.send, None)
            except StopIteration as end:
                attempt.returned(end.value)
            assert seen.pop() == ("c", expected, expected, 2)

    simulate(main)


@pytest.mark.parametrize(
    ("elapsed", "ahead", "expected"),
    [(10.0, 1_000.0, "retry"), (70.0, 1_000.0, "dead"), (70.0, None, "retry")],
)
def test_later_attempts_are_old_by_the_servers_clock(elapsed, ahead, expected):
    async def main() -> None:
        retry = Retry(on=OSError, backoff=Constant(1), until=Until(elapsed=60))
        jobs, work = queue(retry=retry)
        loop = Loop()
        loop.ahead = ahead
        attempt = make(jobs, work, loop=loop, attempt=2)
        await sleep(elapsed)
        work_ = attempt.begin(lambda: None, Alarms)
        work_.close()
        attempt.raised(OSError())
        assert [how for _, how, _ in loop.said] == [expected]

    simulate(main)


def test_a_job_that_is_not_ours_any_more_is_not_counted():
    async def main() -> None:
        jobs, work = queue()
        attempt = make(jobs, work, loop=Loop(ours=False))
        with capture_events() as events:
            value = await attempt.begin(lambda: None, Alarms)
            attempt.returned(value)
        assert attempt.shop.ledger.processed == 0
        assert isinstance(events[-1], JobLost)
        attempt = make(jobs, work, loop=Loop(ours=False))
        attempt.returned(await attempt.begin(lambda: None, Alarms))
        assert attempt.shop.ledger.processed == 0

    simulate(main)


@pytest.mark.parametrize("cut", [Cut.LOST, Cut.LEAVE])
def test_what_is_lost_or_handed_back_is_not_settled(cut):
    async def main() -> None:
        jobs, work = queue()
        for listens in (True, False):
            attempt = make(jobs, work)
            (hold, _), *_ = attempt.calls
            attempt.begin(lambda: None, Alarms).close()
            hold.interrupt(cut)
            if listens:
                with capture_events() as events:
                    attempt.interrupted()
                assert len(events) == 1
            else:
                attempt.interrupted()
            assert cast("Any", hold.turns).said == []

    simulate(main)


def test_a_greater_cut_outranks_a_smaller_one():
    async def main() -> None:
        jobs, work = queue()
        attempt = make(jobs, work)
        halted: list[int] = []
        (hold, _), *_ = attempt.calls
        attempt.begin(lambda: halted.append(1), Alarms).close()
        for cut in (Cut.CANCEL, Cut.LOST, Cut.CANCEL):
            hold.interrupt(cut)
        assert attempt.cut is Cut.LOST
        attempt._time_over()
        assert attempt.cut is Cut.LOST
        assert len(halted) == 3

    simulate(main)


def test_a_batch_splits_and_sifts():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.batch(size=9, within=1)
        async def many(items: list[int]) -> None: ...

        attempt = make(jobs, many, numbers=(1, 2, 3))
        two = attempt.calls[1][0]
        two.interrupt(Cut.CANCEL)
        assert attempt.sift() == [two]
        assert attempt.sift() == []
        value = await attempt.begin(lambda: None, Alarms)
        assert value == [None, None]
        assert len(attempt.split()) == 2
        one = make(jobs, many)
        assert one.split() == []
        cut = make(jobs, many, numbers=(1, 2))
        cut.cut = Cut.LOST
        assert cut.split() == []

    simulate(main)


def test_each_job_of_a_batch_is_told_of():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.batch(size=9, within=1)
        async def many(items: list[int]) -> None: ...

        attempt = make(jobs, many, numbers=(1, 2))
        with capture_events() as events:
            attempt.returned(await attempt.begin(lambda: None, Alarms))
        assert [(each.name.rpartition(".")[2], cast("Any", each).job_id) for each in events] == [
            ("started", "1"), ("started", "2"), ("done", "1"), ("done", "2")
        ]  # fmt: skip

    simulate(main)
