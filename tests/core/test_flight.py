"""Shared flights: no waiter can harm another, and nothing flies on behalf of nobody."""

from __future__ import annotations

import asyncio
import random
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from aiopatterns.core import clock
from aiopatterns.core.context import bind_deadline, deadline
from aiopatterns.core.errors import QuorumError, TimeoutExceededError
from aiopatterns.core.flight import Flight, Flights, copied, see_off
from aiopatterns.core.waiters import cancel_requested
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate

colour: ContextVar[str] = ContextVar("colour", default="none")


class Load:
    """A function that counts its runs and waits until it is let go."""

    def __init__(self, result="value"):
        self.go = asyncio.Event()
        self.starts = self.ends = self.cancels = 0
        self.result = result

    async def __call__(self):
        self.starts += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancels += 1
            raise
        finally:
            self.ends += 1
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


def new_flights() -> Any:
    """Untyped, so that tests may look at what may be None."""
    return Flights()


async def joined(flights, load, count, key="key"):
    tasks = [asyncio.create_task(flights.run(key, load)) for _ in range(count)]
    await anyio.wait_all_tasks_blocked()
    return tasks


async def test_everybody_gets_one_result():
    flights, load = new_flights(), Load()
    tasks = await joined(flights, load, 3)
    assert len(flights) == 1
    assert "key" in flights
    assert flights.get("key").waiters == 3
    load.go.set()
    assert await asyncio.gather(*tasks) == ["value"] * 3
    assert load.starts == 1
    assert len(flights) == 0
    assert flights.get("key") is None


async def test_a_result_of_none_is_a_result():
    async def nothing():
        return None

    assert await new_flights().run("key", nothing) is None


async def test_keys_and_successive_flights_are_apart():
    flights, load = new_flights(), Load()
    load.go.set()
    await asyncio.gather(flights.run("a", load), flights.run("b", load))
    await flights.run("a", load)
    assert load.starts == 3


@pytest.mark.promise("core-flight-shared")
@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_a_cancelled_waiter_leaves_alone(leaver):
    flights, load = new_flights(), Load()
    tasks = await joined(flights, load, 3)
    tasks[leaver].cancel()
    await asyncio.wait((tasks[leaver],))
    assert flights.get("key").waiters == 2
    load.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results.count("value") == 2
    assert load.cancels == 0


@pytest.mark.promise("core-flight-shared")
async def test_the_last_one_out_cancels_and_waits_for_the_end():
    flights, load = new_flights(), Load()
    tasks = await joined(flights, load, 2)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert (load.cancels, load.ends, len(flights)) == (1, 1, 0)


@pytest.mark.promise("core-flight-shared")
async def test_a_second_native_cancel_does_not_cut_the_wait_short():
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def slow_to_end():
        try:
            await anyio.sleep_forever()
        finally:
            cleaning.set()
            await cleaned.wait()

    flights = new_flights()
    (task,) = await joined(flights, slow_to_end, 1)
    task.cancel()
    await cleaning.wait()
    for _ in range(3):
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not task.done()
    assert len(flights) == 0  # who comes now starts a new one
    assert await flights.run("key", clock_turn) == "turn"
    cleaned.set()
    await asyncio.wait((task,))
    assert task.cancelled()


async def clock_turn():
    await clock.yield_now()
    return "turn"


def test_it_obeys_timeouts_and_scopes():
    async def run():
        flights, load = new_flights(), Load()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await flights.run("key", load)
        with anyio.move_on_after(1) as scope:
            await flights.run("key", load)
        assert scope.cancelled_caught
        with anyio.CancelScope() as scope:
            scope.cancel()
            await flights.run("key", load)
        assert scope.cancelled_caught
        assert not cancel_requested()
        return load.starts, load.ends, load.cancels, len(flights)

    assert simulate(run) == (3, 3, 3, 0)


async def test_an_error_in_the_cleanup_is_the_cause_of_the_cancellation():
    async def fails_in_cleanup():
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyError("lost")

    causes = []

    async def ask():
        try:
            await new_flights().run("key", fails_in_cleanup)
        except asyncio.CancelledError as cancelled:
            causes.append(cancelled.__cause__)
            raise

    task = asyncio.create_task(ask())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert repr(causes) == "[KeyError('lost')]"


async def test_a_function_that_swallows_its_cancellation_takes_nobody_new():
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def stubborn():
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            cleaning.set()
            await cleaned.wait()
        return "anyway"

    flights = new_flights()
    (task,) = await joined(flights, stubborn, 1)
    flight = flights.get("key")
    task.cancel()
    await cleaning.wait()
    assert not flight.open
    cleaned.set()
    await asyncio.wait((task,))
    assert task.cancelled()


@pytest.mark.promise("core-flight-shared")
async def test_a_function_that_cancels_itself_hangs_nobody():
    async def cancelled():
        await clock.yield_now()
        raise asyncio.CancelledError("scope 123")

    tasks = await joined(new_flights(), cancelled, 2)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in done)
    assert not any("scope 123" in str(each) for each in done)


async def test_everybody_gets_an_error_of_its_own():
    error = TimeoutExceededError("slow", timeout=2.0)
    error.add_note("first")
    load = Load(error)
    tasks = await joined(new_flights(), load, 3)
    load.go.set()
    errors: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    # Who is woken first has the original: on seeded loops it may be anybody.
    assert any(each is error for each in errors)
    assert len({id(each) for each in errors}) == 3
    for number, each in enumerate(errors):
        assert (type(each), str(each), each.timeout) == (TimeoutExceededError, "slow", 2.0)
        assert each.__notes__ == ["first"]
        assert innermost(each) == "__call__"
        each.add_note(str(number))
    assert [each.__notes__ for each in errors] == [["first", str(n)] for n in range(3)]


def innermost(error):
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_name


def depth(error):
    traceback, frames = error.__traceback__, 0
    while traceback is not None:
        traceback, frames = traceback.tb_next, frames + 1
    return frames


async def test_an_error_without_an_exact_copy_is_shared_and_does_not_grow():
    error = NoCopy("odd")
    load = Load(error)
    tasks = await joined(new_flights(), load, 5)
    load.go.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(each is error for each in errors)
    assert depth(error) <= 5


class NoCopy(Exception):
    """Has a field that belongs to another layout, as errors of extensions may."""

    start = slice.start


class Slotted(Exception):
    __slots__ = ("code", "unset")

    def __init__(self, *, code):
        super().__init__("slotted")
        self.code = code


class Picky(ValueError):
    def __new__(cls, *args, **kwargs):
        if not kwargs:
            raise TypeError("cannot be made again")
        return super().__new__(cls, *args)

    def __init__(self, text, *, who):
        super().__init__(f"{who}: {text}")
        self.who = who


def chained():
    try:
        try:
            raise OSError("first")
        except OSError as first:
            raise KeyError("second") from first
    except KeyError as second:
        return second


COPIED = [
    ValueError("text", 2),
    OSError(2, "no such file", "name"),
    OSError(2, "no such file"),
    OSError("text"),
    FileNotFoundError(2, "no such file", "from", None, "to"),
    BlockingIOError(11, "busy", 5),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"),
    StopIteration(3),
    SystemExit(4),
    ImportError("text", name="module", path="path"),
    AttributeError("text", name="name", obj=3),
    SyntaxError("text", ("file", 1, 2, "line")),
    ExceptionGroup("group", [ValueError(1), OSError(2, "x")]),
    BaseExceptionGroup("group", [KeyboardInterrupt()]),
    QuorumError(got=1, need=2, errors={"a": ValueError()}),
    Slotted(code=5),
    Picky("text", who="me"),
    chained(),
]


@pytest.mark.parametrize("error", COPIED, ids=range(len(COPIED)))
def test_a_copy_is_exact_and_apart(error):
    error.add_note("a note")
    copy: Any = copied(error)
    assert copy is not error
    assert type(copy) is type(error)
    for name in ("args", "__dict__", "__cause__", "__context__", "__suppress_context__"):
        assert getattr(copy, name) == getattr(error, name)
    assert (str(copy), repr(copy)) == (str(error), repr(error))
    for name in ("errno", "filename", "filename2", "characters_written", "start", "object"):
        assert getattr(copy, name, None) == getattr(error, name, None)
    for name in ("value", "code", "name", "path", "obj", "lineno", "message", "exceptions"):
        assert getattr(copy, name, None) == getattr(error, name, None)
    assert not hasattr(copy, "unset")
    assert copy.__traceback__ is None
    copy.add_note("its own")
    assert error.__notes__ == ["a note"]


def test_what_cannot_becopied_exactly_has_no_copy():
    assert copied(NoCopy()) is None


async def test_the_context_is_that_of_the_first_caller():
    async def look():
        await clock.sleep(0.001)
        return colour.get()

    flights = new_flights()

    async def ask(name):
        colour.set(name)
        return await flights.run("key", look)

    red = asyncio.create_task(ask("red"))
    while not flights:
        await clock.yield_now()
    assert [*await asyncio.gather(red, ask("green"))] == ["red", "red"]


async def test_the_deadline_of_one_caller_does_not_bind_the_others():
    async def look():
        await clock.yield_now()
        return deadline()

    with bind_deadline(clock.monotonic() + 10):
        assert await new_flights().run("key", look) is None
        assert deadline() is not None


async def test_a_detached_flight_answers_its_waiters_and_takes_no_other():
    flights, old, new = new_flights(), Load("old"), Load("new")
    old_tasks = await joined(flights, old, 2)
    flight = flights.get("key")
    assert flights.detach("key") is flight
    assert flights.detach("key") is None
    new_tasks = await joined(flights, new, 1)
    assert flights.get("key") is not flight
    old.go.set()
    assert await asyncio.gather(*old_tasks) == ["old", "old"]
    assert "key" in flights  # the end of the old one does not remove the new one
    new.go.set()
    assert await asyncio.gather(*new_tasks) == ["new"]


async def test_a_waiter_cancelled_in_the_turn_of_the_landing_leaves_alone():
    flights = new_flights()
    tasks: list[asyncio.Task[str]] = []

    async def load():
        await clock.yield_now()
        await clock.yield_now()
        # Runs after this function has ended and before its waiters are woken.
        asyncio.get_running_loop().call_soon(tasks[0].cancel)
        return "value"

    tasks += [asyncio.create_task(flights.run("key", load)) for _ in range(2)]
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert tasks[1].result() == "value"


async def test_a_flight_alone():
    ended: list[object] = []
    load = Load()
    flight = Flight(load, ended=ended.append)
    load.go.set()
    assert flight.open
    assert await flight.join() == "value"
    assert ended == [flight]
    assert not flight.open
    assert flight.waiters == 0
    assert await Flight(load).join() == "value"


async def test_a_waiting_coroutine_that_is_closed_leaves_the_flight():
    flights, load = new_flights(), Load()
    waiting = flights.run("key", load)
    waiting.send(None)
    waiting.close()
    await anyio.wait_all_tasks_blocked()
    assert (load.starts, len(flights)) == (0, 0)


def test_a_flight_of_a_loop_that_is_gone_is_not_joined():
    flights = new_flights()
    loop = asyncio.new_event_loop()

    async def stuck():
        await asyncio.Event().wait()

    abandoned = loop.create_task(flights.run("key", stuck))
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))

    async def again():
        assert "key" in flights
        assert flights.get("key") is None
        return await flights.run("key", clock_turn)

    assert asyncio.run(again()) == "turn"
    abandoned.cancel()
    loop.run_until_complete(asyncio.wait((abandoned,)))
    loop.close()
    assert abandoned.cancelled()


def test_a_cancellation_anywhere_leaves_nothing_behind():
    def factory():
        flights, ends = new_flights(), []

        async def load():
            try:
                await clock.yield_now()
                await anyio.sleep(1)
            finally:
                ends.append(1)
                await clock.yield_now()
            return "value"

        async def work():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(flights.run, "key", load)
                assert await flights.run("key", load) == "value"

        def check():
            assert len(flights) == 0
            assert len(ends) <= 1

        return Trial(work(), check)

    visited = cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"))
    assert visited.positions >= 2


def test_a_fault_anywhere_reaches_every_waiter():
    def factory(fault):
        flights = new_flights()

        async def load():
            fault()
            await clock.yield_now()
            fault()

        async def work():
            asked = [flights.run("key", load), flights.run("key", load)]
            first, second = await asyncio.gather(*asked, return_exceptions=True)
            assert type(first) is type(second)
            if first is not None:
                assert first is not second
                raise first

        return Trial(work(), lambda: None)

    assert fail_everywhere(factory, minimum=2).positions == 2


@pytest.mark.promise("core-flight-shared")
def test_under_any_schedule_nobody_harms_another():
    """Waiters come and are cancelled at random; who stays gets the value of one shared run."""

    async def run():
        dice = random.Random(clock.rng().random())
        flights, flying, runs = new_flights(), [], 0

        async def load():
            nonlocal runs
            runs += 1
            number = runs
            flying.append(number)
            try:
                await clock.sleep(dice.uniform(1, 3))
            finally:
                flying.remove(number)
            return number

        async def ask():
            await clock.sleep(dice.uniform(0, 4))
            began = clock.monotonic()
            value = await flights.run("key", load)
            assert clock.monotonic() - began <= 3
            return value

        tasks = [asyncio.create_task(ask()) for _ in range(12)]
        doomed = dice.sample(tasks, 6)
        for task in doomed:
            clock.call_later(dice.uniform(0, 6), task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for task, result in zip(tasks, results, strict=True):
            assert isinstance(result, int) or task in doomed
        await clock.sleep(7)
        assert not flying
        assert not len(flights)

    explore(run, range(200))


async def test_what_a_waiter_adds_to_its_error_at_once_no_other_sees():
    flights: Flights[str, int] = Flights()

    async def fails() -> int:
        await clock.sleep(0.001)
        raise OSError("down")

    async def caller(number: int) -> OSError:
        with pytest.raises(OSError, match="down") as caught:
            await flights.run("key", fails)
        assert not hasattr(caught.value, "__notes__")
        assert caught.value.args == ("down",)
        caught.value.add_note(f"seen by {number}")
        caught.value.args = ("down", number)
        return caught.value

    errors = await asyncio.gather(*(caller(number) for number in range(4)))
    assert sorted(error.args for error in errors) == [("down", number) for number in range(4)]
    assert [error.__notes__ for error in errors] == [[f"seen by {each}"] for each in range(4)]


async def test_a_kept_flight_goes_on_without_waiters():
    load = Load()
    ended: list[object] = []
    flight = Flight(load, ended=ended.append)
    flight.keep()
    waiter = asyncio.create_task(flight.join())
    await anyio.wait_all_tasks_blocked()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert (load.starts, load.cancels, flight.open, ended) == (1, 0, True, [])
    load.go.set()
    assert await flight.join() == "value"
    assert ended == [flight]


@pytest.mark.parametrize("waited", [False, True])
async def test_dismissed_it_ends_and_so_does_who_waits(waited):
    load = Load()
    flight = Flight(load)
    flight.keep()
    waiter = asyncio.create_task(flight.join()) if waited else None
    await anyio.wait_all_tasks_blocked()
    await flight.dismiss()
    assert (load.cancels, load.ends, flight.open) == (1, 1, False)
    if waiter is not None:
        with pytest.raises(asyncio.CancelledError):
            await waiter
    await flight.dismiss()  # harmless


async def test_who_dismisses_waits_for_the_end_also_when_cancelled():
    slow = asyncio.Event()

    async def stubborn():
        try:
            await asyncio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await slow.wait()

    flight = Flight(stubborn)
    flight.keep()
    await anyio.wait_all_tasks_blocked()
    dismissal = asyncio.create_task(flight.dismiss())
    await anyio.wait_all_tasks_blocked()
    dismissal.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not dismissal.done()
    slow.set()
    with pytest.raises(asyncio.CancelledError):
        await dismissal


async def test_a_seat_counts_before_anybody_waits_on_it():
    load = Load()
    flight = Flight(load)
    first, second = flight.board(), flight.board()
    assert flight.waiters == 2
    await anyio.wait_all_tasks_blocked()
    assert not flight.leave(first)
    assert flight.leave(second), "the last one out"
    await see_off([flight])
    assert (load.cancels, load.ends) == (1, 1)
    landed = Flight(Load.__call__.__get__(done := Load()))
    seat = landed.board()
    done.go.set()
    await anyio.wait_all_tasks_blocked()
    assert await landed.ride(seat) == "value", "a seat of a flight that has landed meanwhile"


async def test_who_sees_off_waits_for_all_also_when_cancelled():
    slow = asyncio.Event()
    ends = []

    async def stubborn():
        try:
            await asyncio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await slow.wait()
            ends.append("end")

    flights = [Flight(stubborn), Flight(stubborn)]
    seats = [flight.board() for flight in flights]
    await anyio.wait_all_tasks_blocked()
    assert all(flight.leave(seat) for flight, seat in zip(flights, seats, strict=True))
    farewell = asyncio.create_task(see_off(flights))
    await anyio.wait_all_tasks_blocked()
    farewell.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not farewell.done()
    slow.set()
    with pytest.raises(asyncio.CancelledError):
        await farewell
    assert ends == ["end", "end"]


async def test_released_it_belongs_to_its_waiters_again():
    load = Load()
    flight = Flight(load)
    flight.keep()
    assert not flight.release(), "nobody waits"
    waiter = asyncio.create_task(flight.join())
    await anyio.wait_all_tasks_blocked()
    flight.keep()
    assert flight.release()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert (load.cancels, load.ends) == (1, 1)


async def test_each_waiter_of_a_cancelled_task_gets_an_error_made_for_it():
    class LostError(Exception):
        pass

    flight = Flight(Load(), cancelled=LostError)
    waiters = [asyncio.create_task(flight.join()) for _ in range(2)]
    await anyio.wait_all_tasks_blocked()
    await flight.dismiss()
    first, second = await asyncio.gather(*waiters, return_exceptions=True)
    assert type(first) is type(second) is LostError
    assert first is not second
