"""Chaos: what is struck, how often, by which dice, and how it is switched."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.chaos import Chaos, ChaosInjected, ChaosStatistics
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.stack import Stack
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import cancel_everywhere, capture_events, explore, simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


async def work(value: int = 1) -> int:
    return value


async def numbers(n: int) -> Any:
    for number in range(n):
        yield number


async def outcomes(chaos, calls=100):
    found = []
    for _ in range(calls):
        try:
            found.append(await chaos.call(work))
        except OSError as error:
            found.append(type(error))
    return found


async def test_a_rate_of_one_strikes_always_and_of_zero_never():
    assert await outcomes(Chaos(errors=OSError, rate=1), 5) == [OSError] * 5
    assert await outcomes(Chaos(errors=OSError, rate=0), 5) == [1] * 5


async def test_a_seed_strikes_the_same_calls_in_every_run():
    def chaos(seed):
        return Chaos(errors=(ConnectionResetError, TimeoutError), rate=0.3, seed=seed)

    first = await outcomes(chaos(1))
    assert first == await outcomes(chaos(1))
    assert first != await outcomes(chaos(2))
    assert set(first) == {1, ConnectionResetError, TimeoutError}
    assert 15 < 100 - first.count(1) < 45


def test_without_a_seed_the_dice_of_the_library_are_rolled():
    async def scenario():
        return await outcomes(Chaos(errors=OSError, rate=0.5), 30)

    assert simulate(scenario, seed=3) == simulate(scenario, seed=3)
    assert simulate(scenario, seed=3) != simulate(scenario, seed=4)


def test_latency_is_a_number_or_a_function_of_the_dice():
    async def scenario():
        start = monotonic()
        assert await Chaos(latency=2.5, rate=1).call(work, 7) == 7
        assert monotonic() - start == 2.5
        await Chaos(latency=lambda dice: dice.choice([40.0]), rate=1).call(work)
        assert monotonic() - start == 42.5
        with pytest.raises(OSError):
            await Chaos(latency=1, errors=OSError, rate=1).call(work)
        assert monotonic() - start == 43.5
        await Chaos(latency=0, rate=1).call(work)
        assert monotonic() - start == 43.5

    simulate(scenario)


async def test_errors_are_fresh_and_say_where_they_come_from():
    chaos = Chaos(errors=[lambda: OSError(5, "made")], rate=1)
    caught = []
    for _ in range(2):
        with pytest.raises(OSError) as one:
            await chaos.call(work)
        caught.append(one.value)
    assert caught[0] is not caught[1]
    assert caught[0].args == (5, "made")
    assert caught[0].__notes__ == ["injected by Chaos"]


async def test_it_can_be_switched_while_it_works():
    chaos = Chaos(errors=OSError, rate=1, enabled=False)
    call = chaos(work)
    assert not chaos.enabled
    assert await call() == 1
    chaos.enabled = True
    assert chaos.enabled
    with pytest.raises(OSError):
        await call()
    chaos.enabled = False
    assert await call() == 1
    assert chaos.statistics() == ChaosStatistics(calls=1, delayed=0, failed=1)


async def test_it_counts_and_tells_what_it_injected():
    chaos = Chaos(latency=0.001, errors=OSError, rate=1)
    with capture_events() as events, pytest.raises(OSError) as caught:
        await chaos.call(work)
    assert events == [ChaosInjected(0.001, caught.value)]
    assert chaos.statistics() == ChaosStatistics(calls=1, delayed=1, failed=1)
    quiet = Chaos(errors=OSError, rate=0)
    await quiet.call(work)
    assert quiet.statistics() == ChaosStatistics(calls=1, delayed=0, failed=0)


@given(st.one_of(st.floats(), st.integers(-3, 3)))
def test_the_result_of_a_rate_function_is_clamped(rate):
    async def scenario():
        chaos = Chaos(errors=OSError, rate=lambda: rate)
        found = await outcomes(chaos, 20)
        if rate >= 1:
            assert found.count(1) == 0
        elif math.isnan(rate) or rate <= 0:
            assert found.count(1) == 20

    simulate(scenario)


async def test_of_a_stream_each_step_is_a_call():
    rates = iter([0, 0, 1, 0])
    chaos = Chaos(errors=OSError, rate=lambda: next(rates))
    got = []
    with pytest.raises(OSError):
        async for number in chaos(numbers)(5):
            got.append(number)
    assert got == [0, 1]
    assert chaos.statistics() == ChaosStatistics(calls=3, delayed=0, failed=1)


async def test_a_stream_may_fail_before_its_first_item_and_instead_of_its_end():
    with pytest.raises(OSError):
        await anext(Chaos(errors=OSError, rate=1)(numbers)(5))
    rates = iter([0, 0, 1])
    got = []
    with pytest.raises(OSError):
        async for number in Chaos(errors=OSError, rate=lambda: next(rates))(numbers)(2):
            got.append(number)
    assert got == [0, 1]


async def test_a_stream_is_closed_when_it_is_struck_and_when_it_is_left():
    closed = []

    async def source():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    chaos = Chaos(errors=OSError, rate=0)
    async for _ in (stream := chaos(source)()):
        break
    await stream.aclose()
    assert closed == [True]
    chaos = Chaos(errors=OSError, rate=1, enabled=False)
    with pytest.raises(OSError):
        async for _ in chaos(source)():
            chaos.enabled = True
    assert closed == [True, True]


async def test_a_stream_obeys_the_switch():
    chaos = Chaos(errors=OSError, rate=1, enabled=False)
    assert [number async for number in chaos(numbers)(3)] == [0, 1, 2]
    assert chaos.statistics().calls == 0


def test_what_is_around_it_sees_ordinary_failures():
    async def scenario():
        chaos = Chaos(errors=OSError, rate=0.5, seed=4)
        assert await Stack(Retry(OSError, attempts=20, backoff=Constant(0)), chaos).call(work) == 1
        with pytest.raises(TimeoutExceededError):
            await Stack(Timeout(1), Chaos(latency=60, rate=1)).call(work)
        assert monotonic() == 1

    simulate(scenario)


@pytest.mark.promise("resilience-cancel-everywhere")
def test_cancelled_anywhere_it_leaves_nothing():
    def factory():
        async def calls():
            chaos = Chaos(latency=1, rate=1)
            await chaos.call(work)
            async for _ in chaos(numbers)(2):
                await sleep(0)

        return calls()

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"), minimum=6)


@pytest.mark.promise("resilience-seeds")
def test_many_callers_share_one_chaos():
    async def scenario():
        chaos = Chaos(latency=lambda dice: dice.random(), errors=OSError, rate=0.5)
        done = []

        async def caller():
            try:
                await chaos.call(work)
            except OSError:
                done.append("failed")
            else:
                done.append("ok")

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(caller)
        assert len(done) == 10
        assert chaos.statistics().failed == chaos.statistics().delayed == done.count("failed")

    explore(scenario, range(200))


class NeedsArguments(Exception):
    def __init__(self, needed):
        super().__init__(needed)


async def async_function():
    return 1


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (Chaos, ValueError, "errors must name at least one error if latency is None"),
        (lambda: Chaos(errors=OSError, rate=1.5), ValueError, "rate must be between 0 and 1"),
        (lambda: Chaos(errors=OSError, rate=-0.1), ValueError, "rate must be between 0 and 1"),
        (lambda: Chaos(errors=OSError, rate=math.nan), ValueError, "rate must be .* not nan"),
        (lambda: Chaos(errors=OSError, rate=wrong("x")), TypeError, "rate must be"),
        (lambda: Chaos(errors=OSError, rate=wrong(True)), TypeError, "rate must be"),
        (lambda: Chaos(errors=OSError, rate=wrong(async_function)), TypeError, "rate must be a pl"),
        (lambda: Chaos(latency=-1), ValueError, "latency must be a finite number >= 0"),
        (lambda: Chaos(latency=math.nan), ValueError, "latency must be"),
        (lambda: Chaos(latency=math.inf), ValueError, "latency must be"),
        (lambda: Chaos(latency=wrong("x")), TypeError, "latency must be"),
        (lambda: Chaos(latency=wrong(async_function)), TypeError, "latency must be a plain"),
        (
            lambda: Chaos(errors=wrong(KeyboardInterrupt)),
            TypeError,
            "errors must be a type of Exception",
        ),
        (
            lambda: Chaos(errors=wrong((OSError, int))),
            TypeError,
            "errors must be a type of Exception",
        ),
        (lambda: Chaos(errors=wrong(OSError())), TypeError, "errors must be a function, not OSE"),
        (lambda: Chaos(errors=wrong(async_function)), TypeError, "errors must be a plain function"),
        (
            lambda: Chaos(errors=wrong(NeedsArguments)),
            TypeError,
            "errors must be a type that needs no",
        ),
        (lambda: Chaos(errors=OSError, seed=-1), ValueError, "seed must be a whole number >= 0"),
        (lambda: Chaos(errors=OSError, seed=wrong(1.5)), TypeError, "seed must be"),
        (lambda: Chaos(errors=OSError, enabled=wrong(1)), TypeError, "enabled must be True or Fal"),
    ],
    ids=range(20),
)
def test_bad_input_is_one_clear_error(make, kind, text):
    with pytest.raises(kind, match=f"^{text}"):
        make()


async def test_what_functions_return_is_checked_when_they_are_called():
    with pytest.raises(TypeError, match=r"^what errors makes must be an Exception, not 3"):
        await Chaos(errors=wrong(lambda: 3), rate=1).call(work)
    chaos = Chaos(errors=OSError)
    with pytest.raises(TypeError, match=r"^enabled must be"):
        chaos.enabled = wrong(None)
    assert repr(chaos) == "Chaos(rate=0.1)"
    assert repr(Chaos(latency=1, rate=lambda: 0.5)) == "Chaos(rate=fn)"
