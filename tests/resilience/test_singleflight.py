"""Single flights: who shares, who leaves, and what a key is."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.context import bind_deadline, remaining
from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.singleflight import SingleFlight, SingleFlightStatistics
from aiopatterns.resilience.stack import Stack
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Loading:
    """An async function that counts its runs."""

    def __init__(self, delay: float = 0.001) -> None:
        self.runs = 0
        self.delay = delay

    async def __call__(self, *args: object, **kwargs: object) -> int:
        self.runs += 1
        run = self.runs
        await sleep(self.delay)
        return run


async def together(*calls):
    results: list[object] = [None] * len(calls)

    async def call(at, fn):
        results[at] = await fn()

    async with anyio.create_task_group() as group:
        for at, fn in enumerate(calls):
            group.start_soon(call, at, fn)
    return results


async def test_who_asks_for_the_same_meanwhile_shares_one_run():
    flights, load = SingleFlight(), Loading()
    assert await together(*[partial(flights.run, "key", load)] * 5) == [1] * 5
    assert await flights.run("key", load) == 2  # nothing is kept
    assert flights.statistics() == SingleFlightStatistics(flights=2, shared=4, in_flight=0)


async def test_other_keys_are_apart():
    flights, load = SingleFlight(), Loading()
    await together(*[partial(flights.run, key, load) for key in (1, 2, 1, ("a", 3))])
    assert load.runs == 3


async def test_as_a_policy_the_arguments_are_the_key():
    load = Loading()
    shared = SingleFlight()(load)
    calls = [
        partial(shared, 1),
        partial(shared, 1),
        partial(shared, 2),
        partial(shared, a=1, b=2),
        partial(shared, b=2, a=1),
        partial(shared, 1, b=2),
    ]
    await together(*calls)
    assert load.runs == 4


async def test_a_key_function_says_what_is_asked_for():
    load = Loading()
    shared = SingleFlight(key=lambda user, **_: user)(load)
    await together(partial(shared, 1, trace="a"), partial(shared, 1, trace="b"))
    assert load.runs == 1


async def test_functions_that_share_a_policy_do_not_share_their_calls():
    policy, one, two = SingleFlight(), Loading(), Loading()
    await together(partial(policy(one), 1), partial(policy(two), 1), partial(policy.call, one, 1))
    assert (one.runs, two.runs) == (1, 1)


async def test_methods_of_other_objects_are_apart():
    class Client:
        def __init__(self):
            self.runs = 0

        @SingleFlight()
        async def get(self, n):
            self.runs += 1
            await sleep(0.001)

    a, b = Client(), Client()
    await together(partial(a.get, 1), partial(a.get, 1), partial(b.get, 1))
    assert (a.runs, b.runs) == (1, 1)


async def test_everybody_gets_an_error_of_its_own():
    async def broken():
        await sleep(0.001)
        raise OSError(5, "io")

    caught: list[OSError] = []

    async def ask():
        try:
            await flights.run("key", broken)
        except OSError as error:
            caught.append(error)

    flights = SingleFlight()
    await together(ask, ask, ask)
    assert [str(error) for error in caught] == ["[Errno 5] io"] * 3
    assert len(set(map(id, caught))) == 3


def test_who_leaves_early_leaves_alone_and_the_last_one_out_cancels():
    async def scenario():
        load = Loading(10)
        flights = SingleFlight()
        shared = Stack(Timeout(3), flights)(load)

        async def impatient():
            with pytest.raises(TimeoutExceededError):
                await shared()

        async def patient():
            return await flights.run("other", lambda: Timeout(20).call(load))

        assert await together(impatient, patient, impatient) == [None, 2, None]
        assert load.runs == 2
        assert flights.statistics().in_flight == 0

    simulate(scenario)


def test_the_deadline_of_the_first_does_not_bind_those_who_join():
    async def scenario():
        seen = []

        async def flaky():
            seen.append(remaining())
            await sleep(2)
            if len(seen) < 2:
                raise OSError
            return "done"

        # The retry would stop at once if it saw the first caller's deadline.
        shared = Stack(SingleFlight(), Retry(OSError))(flaky)

        async def first():
            with bind_deadline(1.0):
                return await shared()

        assert await together(first, shared) == ["done", "done"]
        assert seen == [None, None]

    simulate(scenario)


async def test_bad_keys_teach():
    shared = SingleFlight()(Loading())
    with pytest.raises(TypeError, match=r"unhashable type: 'list'; give SingleFlight a key= that"):
        await shared([1])
    flights = SingleFlight()
    with pytest.raises(TypeError, match="unhashable"):
        await flights.run(wrong([1]), Loading())
    assert flights.statistics() == SingleFlightStatistics(0, 0, 0)


@pytest.mark.promise("resilience-bad-input")
def test_bad_input_is_one_clear_error():
    with pytest.raises(TypeError, match=r"^key must be a function, not 3"):
        SingleFlight(key=wrong(3))
    with pytest.raises(TypeError, match=r"^key must be a plain function, not the async function"):
        SingleFlight(key=wrong(Loading()))

    async def stream():
        yield 1

    with pytest.raises(TypeError, match=r"a stream has one reader, so .*stream"):
        SingleFlight()(stream)
    assert repr(SingleFlight()) == "SingleFlight()"


@pytest.mark.promise("resilience-cancel-everywhere")
def test_cancelled_anywhere_it_leaves_nothing():
    def factory():
        flights, load = SingleFlight(), Loading(1)

        async def work():
            await together(*[partial(flights.run, "key", load)] * 3)
            await flights.run("key", load)

        def check():
            assert flights.statistics().in_flight == 0

        return Trial(work(), check)

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"), minimum=2)


def test_faults_anywhere_reach_every_waiter():
    def factory(fault):
        flights = SingleFlight()

        async def load():
            fault()
            await sleep(1)
            fault()

        def key():
            fault()
            return 1

        shared = SingleFlight(key=key)(load)

        async def work():
            await together(partial(flights.run, 1, load), partial(flights.run, 1, load))
            await shared()

        return Trial(work(), lambda: None)

    fail_everywhere(factory, minimum=5)


@pytest.mark.promise("resilience-seeds")
def test_under_any_schedule_a_key_runs_once_at_a_time():
    async def scenario():
        flights, running = SingleFlight(), set()

        async def load(key):
            assert key not in running
            running.add(key)
            await sleep(0.1)
            running.discard(key)
            return key

        async def caller(number):
            await sleep(0.05 * (number % 4))
            with anyio.move_on_after(0.12 if number % 5 == 0 else 10):
                assert await flights.run(number % 3, partial(load, number % 3)) == number % 3

        await together(*[partial(caller, number) for number in range(12)])
        assert not running
        statistics = flights.statistics()
        assert statistics.flights + statistics.shared == 12

    explore(scenario, range(200))
