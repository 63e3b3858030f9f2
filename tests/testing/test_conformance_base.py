"""What the suites stand on: repetition after a stall, refusals, a worker by hand."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.queue import ClaimedJob, NewJob, Turned
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.testing import simulate
from aiopatterns.testing.conformance_base import (
    MAX_IDLE_TURNS,
    ROUNDS,
    Conformance,
    Hand,
    refusal,
    timely,
)


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Stalling(Conformance):
    """Fails so often, after so many units that nobody waited for."""

    def __init__(self, failures, units):
        self.failures = failures
        self.units = units
        self.seen = []

    @timely
    async def test(self, backend):
        """The documentation stays."""
        self.seen.append(self.name("key"))
        await self.pause(1)
        await sleep(self.units * self.unit)
        self.failures -= 1
        assert self.failures < 0


def test_a_test_that_failed_after_a_stall_is_repeated_with_new_names():
    suite = Stalling(failures=2, units=1.5)
    simulate(lambda: suite.test(wrong(None)))
    assert suite.seen == ["key", "key-1", "key-2"]


def test_a_test_that_fails_without_a_stall_is_not_repeated():
    suite = Stalling(failures=1, units=0.5)
    with pytest.raises(AssertionError):
        simulate(lambda: suite.test(wrong(None)))
    assert suite.seen == ["key"]


def test_a_machine_that_always_stalls_is_no_excuse():
    suite = Stalling(failures=99, units=2)
    with pytest.raises(AssertionError):
        simulate(lambda: suite.test(wrong(None)))
    assert len(suite.seen) == ROUNDS


def test_a_timely_test_keeps_its_name_and_documentation():
    assert Stalling.test.__name__ == "test"
    assert Stalling.test.__doc__ == "The documentation stays."


def test_time_is_counted_in_units():
    class Slow(Conformance):
        unit = 2.0

    async def main():
        await Slow().pause(1.5)
        return monotonic()

    assert simulate(main) == 3.0
    assert Slow().life(3) == 6.0


async def _raise(error):
    raise error


async def _answer():
    return 42


async def test_a_refusal_is_of_the_right_kind_and_says_the_word():
    await refusal(_raise(ValueError("key must be good")), (ValueError,), "key")
    with pytest.raises(AssertionError, match="does not name 'key'"):
        await refusal(_raise(ValueError("bad")), (ValueError,), "key")
    with pytest.raises(AssertionError, match="_answer answered 42 instead of refusing"):
        await refusal(_answer(), (ValueError,))
    with pytest.raises(TypeError):
        await refusal(_raise(TypeError("other")), (ValueError,))


async def test_a_hand_works_as_it_is_told():
    async with open_backend("memory://") as backend:
        queue = backend.queue("q")
        hand = Hand(queue, "w")
        await queue.enqueue([NewJob(str(number), b"") for number in range(5)])
        assert await hand.take_ids(2) == ["0", "1"]
        assert (await hand.settle("done", "0")).stale == []
        assert (await hand.again()).claimed == []
        assert await hand.work_off(2) == ["2", "3", "4"]
        assert hand.number > 4


class Talkative:
    """A queue that always says that there is more, and gives out a job now and then."""

    def __init__(self, every):
        self.every = every
        self.steps = 0

    async def step(self, turn):
        self.steps += 1
        job = ClaimedJob(str(self.steps), b"", 1)
        claimed = [job] if self.every and self.steps % self.every == 0 else []
        return Turned(claimed, [], [], False, False, True, False, None, 0.0)


async def test_a_hand_does_not_ask_for_ever():
    silent, slow = Talkative(every=0), Talkative(every=3)
    assert await Hand(wrong(silent), "w").take(5) == []
    assert silent.steps == MAX_IDLE_TURNS
    assert await Hand(wrong(slow), "w").take_ids(4) == ["3", "6", "9", "12"]
