"""Bulkheads: sequences of states, a plain model, permits under every cancellation, policies."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_deadline
from aiopatterns.core.errors import BulkheadFullError
from aiopatterns.resilience.bulkhead import Bulkhead, BulkheadStatistics
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import (
    CancelKind,
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)

ORDERS = ("fifo", "lifo", "priority")
every_order = pytest.mark.parametrize("order", ORDERS)


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Callers:
    """Callers of one bulkhead, each known by a letter and ended on command."""

    def __init__(self, bulkhead, group):
        self.bulkhead = bulkhead
        self.group = group
        self.inside: list[str] = []
        self.refused: list[str] = []
        self.entered: list[str] = []
        self.scopes: dict[str, anyio.CancelScope] = {}
        self.leave: dict[str, anyio.Event] = {}

    async def call(self, name, priority, lives):
        with self.scopes[name]:
            try:
                with bind_deadline(None if lives is None else monotonic() + lives):
                    async with self.bulkhead.slot(priority=priority):
                        self.inside.append(name)
                        self.entered.append(name)
                        try:
                            await self.leave[name].wait()
                        finally:
                            self.inside.remove(name)
            except BulkheadFullError as error:
                assert error.retry_after is None
                self.refused.append(name)

    async def do(self, step):
        verb, rest = step[0], step[1:]
        if verb == "+":  # +a@5<2: a calls with priority 5 and a deadline in 2 s
            rest, _, lives = rest.partition("<")
            name, _, priority = rest.partition("@")
            self.scopes[name], self.leave[name] = anyio.CancelScope(), anyio.Event()
            self.group.start_soon(
                self.call, name, int(priority or 0), float(lives) if lives else None
            )
        elif verb == "-":
            self.leave[rest].set()
        elif verb == "!":
            self.scopes[rest].cancel()
        elif verb == "#":
            self.bulkhead.resize(int(rest))
        elif verb == "~":
            await sleep(float(rest))
        elif verb == "=":  # =ab/1: a and b are inside, one waits
            inside, _, queued = rest.partition("/")
            assert sorted(self.inside) == sorted(inside), step
            assert self.bulkhead.statistics().queued == int(queued or 0), step
        elif verb == "x":
            assert "".join(self.refused) == rest, step
        else:
            assert verb == ">", step  # >abc: they have entered in this order
            assert "".join(self.entered) == rest, step
        await sleep(1e-6)
        now = self.bulkhead.statistics()
        assert now.in_flight == len(self.inside)
        assert now.available == max(self.bulkhead.limit - now.in_flight, 0)
        assert not (now.queued and now.available)


def sequence(options, script):
    async def scenario():
        async with anyio.create_task_group() as group:
            callers = Callers(Bulkhead(**options), group)
            for step in script.split():
                await callers.do(step)
            group.cancel_scope.cancel()
        limit = callers.bulkhead.limit
        assert callers.bulkhead.statistics() == BulkheadStatistics(limit, 0, 0)

    return scenario


SEQUENCES = {
    "one permit": ({"limit": 1}, "+a =a -a ="),
    "permits come back": ({"limit": 1}, "+a -a +b =b -b +c =c x"),
    "full refuses at once": ({"limit": 2}, "+a +b +c =ab xc -a +d =bd xc"),
    "none is refused while one is free": ({"limit": 3}, "+a +b +c =abc x"),
    "zero refuses all": ({"limit": 0}, "+a +b = xab"),
    "zero refuses all in spite of a queue": ({"limit": 0, "max_queue": 9}, "+a = xa"),
    "the queue waits": ({"limit": 1, "max_queue": 2}, "+a +b +c =a/2 -a =b/1 -b =c -c = x"),
    "a full queue refuses": ({"limit": 1, "max_queue": 1}, "+a +b +c =a/1 xc -a =b"),
    "a place in the queue comes back": ({"limit": 1, "max_queue": 1}, "+a +b -a +c =b/1 x"),
    "a cancelled waiter's place comes back": (
        {"limit": 1, "max_queue": 1},
        "+a +b !b =a +c =a/1 -a =c x",
    ),
    "fifo": ({"limit": 1, "max_queue": 9}, "+a +b +c +d -a -b -c >abcd"),
    "lifo": ({"limit": 1, "max_queue": 9, "order": "lifo"}, "+a +b +c +d -a -d -c >adcb"),
    "lifo takes who came since": (
        {"limit": 1, "max_queue": 9, "order": "lifo"},
        "+a +b +c -a =c/1 +d -c =d/1 >acd -d =b",
    ),
    "priority": (
        {"limit": 1, "max_queue": 9, "order": "priority"},
        "+a +b@1 +c@5 +d@3 -a -c -d >acdb",
    ),
    "equal priorities are first come first served": (
        {"limit": 1, "max_queue": 9, "order": "priority"},
        "+a +b@2 +c@2 +d@2 -a -b -c >abcd",
    ),
    "negative priorities are last": (
        {"limit": 1, "max_queue": 9, "order": "priority"},
        "+a +b@-1 +c -a -c >acb",
    ),
    "priority is of no account in fifo": (
        {"limit": 1, "max_queue": 9},
        "+a +b +c@9 -a -b >abc",
    ),
    "a cancelled waiter of priority": (
        {"limit": 1, "max_queue": 9, "order": "priority"},
        "+a +b@1 +c@2 !c -a =b >ab",
    ),
    "cancelled inside": ({"limit": 1}, "+a !a = +b =b x"),
    "cancelled inside hands on": ({"limit": 1, "max_queue": 1}, "+a +b !a =b"),
    "waits no longer than max_wait": (
        {"limit": 1, "max_queue": 1, "max_wait": 2.0},
        "+a +b ~1.9 =a/1 x ~0.2 =a xb -a =",
    ),
    "each waits for its own time": (
        {"limit": 1, "max_queue": 3, "max_wait": 2.0},
        "+a +b ~1 +c ~1.5 =a/1 xb -a =c ~5 =c xb",
    ),
    "a permit just in time": (
        {"limit": 1, "max_queue": 1, "max_wait": 2.0},
        "+a +b ~1.9 -a =b ~5 =b x",
    ),
    "max_wait 0 never waits": ({"limit": 1, "max_queue": 5, "max_wait": 0}, "+a +b =a xb"),
    "max_wait without end": (
        {"limit": 1, "max_queue": 1, "max_wait": math.inf},
        "+a +b ~9999 =a/1 -a =b",
    ),
    "the deadline cuts the wait": ({"limit": 1, "max_queue": 1}, "+a +b<3 ~2.9 =a/1 ~0.2 =a xb"),
    "the deadline is nearer than max_wait": (
        {"limit": 1, "max_queue": 1, "max_wait": 5},
        "+a +b<3 ~3.1 =a xb",
    ),
    "max_wait is nearer than the deadline": (
        {"limit": 1, "max_queue": 1, "max_wait": 1},
        "+a +b<3 ~1.1 =a xb",
    ),
    "no wait after the deadline": ({"limit": 1, "max_queue": 1}, "+a +b<-1 =a xb"),
    "a free permit needs no time": ({"limit": 1}, "+a<-1 =a x"),
    "grow": ({"limit": 1}, "+a +b #2 +c =ac xb"),
    "grow wakes who waits": ({"limit": 1, "max_queue": 5}, "+a +b +c +d #3 =abc/1 -a =bcd"),
    "shrink takes effect as permits return": (
        {"limit": 3},
        "+a +b +c #1 =abc +d xd -a =bc +e xde -b =c +f xdef -c = +g =g xdef",
    ),
    "shrink, with a queue": (
        {"limit": 2, "max_queue": 2},
        "+a +b +c #1 =ab/1 -a =b/1 -b =c",
    ),
    "shrink and grow again": ({"limit": 2, "max_queue": 2}, "+a +b +c #1 #3 =abc"),
    "shrink to nothing and back": (
        {"limit": 1, "max_queue": 2},
        "+a +b #0 =a/1 +c xc -a =/1 #1 =b",
    ),
    "who waits at zero is refused in time": (
        {"limit": 1, "max_queue": 2, "max_wait": 1},
        "+a +b #0 -a =/1 ~1.1 = xb",
    ),
    "resize to the same": ({"limit": 1, "max_queue": 1}, "+a +b #1 =a/1 -a =b"),
    "lifo, refused when full": (
        {"limit": 1, "max_queue": 1, "order": "lifo"},
        "+a +b +c =a/1 xc -a =b",
    ),
    "priority, refused when full, whatever the priority": (
        {"limit": 1, "max_queue": 1, "order": "priority"},
        "+a +b +c@9 =a/1 xc -a =b",
    ),
    "priority and time": (
        {"limit": 1, "max_queue": 3, "max_wait": 1, "order": "priority"},
        "+a +b@9 ~0.5 +c ~0.6 =a/1 xb -a =c",
    ),
}


@pytest.mark.parametrize(("options", "script"), SEQUENCES.values(), ids=SEQUENCES)
def test_sequences(options, script):
    simulate(sequence(options, script))


@pytest.mark.promise("resilience-seeds")
@pytest.mark.parametrize("name", ["fifo", "lifo", "priority", "grow wakes who waits"])
def test_sequences_are_the_same_under_any_schedule(name):
    explore(sequence(*SEQUENCES[name]), range(50))


class Model:
    """A bulkhead as plainly as can be: who is in, who waits, nothing clever."""

    def __init__(self, limit, max_queue, order):
        self.limit, self.max_queue, self.order = limit, max_queue, order
        self.inside: list[int] = []
        self.waiting: list[tuple[int, int]] = []

    def call(self, number, priority):
        if len(self.inside) < self.limit:
            self.inside.append(number)
        elif self.limit and len(self.waiting) < self.max_queue:
            self.waiting.append((number, priority))
        self.move()

    def end(self, number):
        self.inside = [each for each in self.inside if each != number]
        self.waiting = [each for each in self.waiting if each[0] != number]
        self.move()

    def resize(self, limit):
        self.limit = limit
        self.move()

    def move(self):
        keys: dict[str, Any] = {
            "fifo": lambda each: each[0],
            "lifo": lambda each: -each[0],
            "priority": lambda each: (-each[1], each[0]),
        }
        while self.waiting and len(self.inside) < self.limit:
            self.waiting.sort(key=keys[self.order])
            self.inside.append(self.waiting.pop(0)[0])


STEPS = st.one_of(
    st.tuples(st.just("call"), st.integers(-2, 2)),
    st.tuples(st.just("end"), st.integers(0, 20)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("resize"), st.integers(0, 3)),
)


@given(st.integers(0, 3), st.integers(0, 4), st.sampled_from(ORDERS), st.lists(STEPS, max_size=30))
def test_it_agrees_with_the_plain_model(limit, max_queue, order, steps):
    async def scenario():
        model = Model(limit, max_queue, order)
        async with anyio.create_task_group() as group:
            callers = Callers(Bulkhead(limit, max_queue=max_queue, order=order), group)
            for number, (verb, argument) in enumerate(steps):
                if verb == "call":
                    await callers.do(f"+{number}@{argument}")
                    model.call(number, argument)
                elif verb == "resize":
                    await callers.do(f"#{argument}")
                    model.resize(argument)
                elif str(argument) in callers.scopes:
                    waits = any(argument == each for each, _ in model.waiting)
                    await callers.do(f"{'!' if waits or verb == 'cancel' else '-'}{argument}")
                    model.end(argument)
                assert sorted(map(int, callers.inside)) == sorted(model.inside)
                assert callers.bulkhead.statistics().queued == len(model.waiting)
            group.cancel_scope.cancel()

    simulate(scenario)


@every_order
@pytest.mark.parametrize("max_wait", [None, 5.0])
@pytest.mark.promise("resilience-bulkhead", "resilience-cancel-everywhere")
def test_permits_are_conserved_when_cancelled_anywhere(order, max_wait):
    """In acquire (waiting, and granted but not yet running), in the call, and in release."""

    def factory():
        bulkhead = Bulkhead(1, max_queue=5, max_wait=max_wait, order=order)
        limited = bulkhead(sleep)

        async def work():
            async with anyio.create_task_group() as group:
                group.start_soon(limited, 1)
                await sleep(0.5)
                group.start_soon(limited, 1)
                await limited(1)
                async with bulkhead.slot(priority=1):
                    await sleep(1)

        def check():
            assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)

        return Trial(work(), check)

    kinds: tuple[CancelKind, ...] = ("native", "scope", "timeout", "native-twice")
    cancel_everywhere(factory, kinds=kinds, minimum=4)


@pytest.mark.promise("resilience-bulkhead", "resilience-cancel-everywhere")
def test_a_stream_gives_its_permit_back_when_cancelled_anywhere():
    def factory():
        bulkhead = Bulkhead(1, max_queue=1)
        closed = []

        @bulkhead
        async def numbers():
            try:
                for number in range(3):
                    await sleep(1)
                    yield number
            finally:
                await sleep(0)
                closed.append(True)

        async def work():
            async with anyio.create_task_group() as group:
                group.start_soon(bulkhead(sleep), 1)
                await sleep(0.5)
                stream = numbers()
                try:
                    async for _ in stream:
                        assert bulkhead.statistics().in_flight == 1
                finally:
                    await stream.aclose()
                assert closed

        def check():
            assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)

        return Trial(work(), check)

    cancel_everywhere(factory, minimum=5)


def test_permits_are_conserved_when_the_function_fails_anywhere():
    def factory(fault):
        bulkhead = Bulkhead(1, max_queue=5)

        @bulkhead
        async def call():
            fault()
            await sleep(1)
            fault()

        @bulkhead
        async def stream():
            fault()
            yield 1
            fault()

        async def work():
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await call()
                assert [each async for each in stream()] == [1]

        def check():
            assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)

        return Trial(work(), check)

    fail_everywhere(factory, minimum=6)


@every_order
@pytest.mark.promise("resilience-bulkhead", "resilience-seeds")
def test_the_limit_holds_under_any_schedule_and_any_cancellation(order):
    async def scenario():
        bulkhead = Bulkhead(2, max_queue=6, max_wait=2, order=order)
        dice = random.Random(monotonic())
        inside = most = 0

        async def body():
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            try:
                await sleep(dice.choice((0, 0.5, 1)))
            finally:
                inside -= 1

        held = bulkhead(body)

        async def call(number):
            await sleep(number % 4 * 0.5)
            with anyio.move_on_after(None if number % 3 else 1 + number % 2 * 0.5):
                try:
                    if number % 2:
                        await held()
                    else:
                        async with bulkhead.slot(priority=number % 5):
                            await body()
                except BulkheadFullError:
                    pass

        async with anyio.create_task_group() as group:
            for number in range(16):
                group.start_soon(call, number)
            for limit in (1, 2, 3, 2):
                await sleep(0.5)
                bulkhead.resize(limit)
        assert bulkhead.statistics() == BulkheadStatistics(2, 0, 0)
        assert 2 <= most <= 3

    explore(scenario, range(200))


@every_order
def test_a_waiter_that_was_granted_and_cancelled_in_one_turn_hands_on(order):
    async def scenario():
        bulkhead = Bulkhead(1, max_queue=5, order=order)
        got: list[str] = []

        async def call(name, scope):
            with scope:
                async with bulkhead.slot():
                    got.append(name)

        scopes = {name: anyio.CancelScope() for name in "abc"}
        assert bulkhead.try_acquire()
        async with anyio.create_task_group() as group:
            for name, scope in scopes.items():
                group.start_soon(call, name, scope)
                await sleep(0.001)
            bulkhead.release()
            assert bulkhead.statistics() == BulkheadStatistics(0, 2, 1)
            scopes["c" if order == "lifo" else "a"].cancel()
            scopes["b"].cancel()
        assert got in (["c"], ["a", "c"], ["a"], ["c", "a"])
        assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)

    explore(scenario, range(60))


async def test_native_cancel_of_a_granted_waiter_hands_on():
    bulkhead = Bulkhead(1, max_queue=5)
    assert bulkhead.try_acquire()
    waiters = [asyncio.create_task(bulkhead(sleep)(0)) for _ in range(2)]
    while bulkhead.statistics().queued < 2:
        await sleep(0)
    bulkhead.release()
    waiters[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiters[0]
    await waiters[1]
    assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)


async def test_a_waiter_cancelled_before_its_grant_in_one_turn_is_skipped():
    bulkhead = Bulkhead(1, max_queue=5)
    assert bulkhead.try_acquire()
    waiter = asyncio.create_task(bulkhead(sleep)(0))
    while not bulkhead.statistics().queued:
        await sleep(0)
    waiter.cancel()
    bulkhead.release()
    assert bulkhead.statistics().in_flight == 0
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)


def test_an_outer_timeout_wins_over_the_deadline_it_has_bound():
    """Both are over at once: the call is either refused or timed out, and holds nothing."""

    async def scenario():
        bulkhead = Bulkhead(1, max_queue=1)
        assert bulkhead.try_acquire()
        with pytest.raises((TimeoutError, BulkheadFullError)):
            await Timeout(2).call(bulkhead(sleep), 1)
        assert monotonic() == pytest.approx(2)
        bulkhead.release()
        assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)

    explore(scenario, range(30))


async def test_as_a_policy():
    bulkhead = Bulkhead(1)

    @bulkhead
    async def double(n):
        assert bulkhead.statistics() == BulkheadStatistics(0, 0, 1)
        with pytest.raises(BulkheadFullError) as caught:
            await bulkhead.call(sleep, 0)
        assert str(caught.value) == "Bulkhead(1): no permit is free (1 in flight, 0 queued)"
        assert caught.value.name == "Bulkhead"
        return 2 * n

    assert await double(21) == 42
    assert double.__name__ == "double"
    with pytest.raises(ZeroDivisionError):
        await bulkhead.call(fails)
    assert bulkhead.statistics().available == 1
    assert repr(bulkhead) == "Bulkhead(1)"


async def fails():
    raise ZeroDivisionError


async def test_a_stream_holds_its_permit_for_its_life():
    bulkhead = Bulkhead(1)

    @bulkhead
    async def numbers():
        yield 1
        yield 2

    async for _ in numbers():
        assert bulkhead.statistics().in_flight == 1
        with pytest.raises(BulkheadFullError):
            await anext(numbers())
    assert bulkhead.statistics().in_flight == 0
    stream = numbers()
    assert bulkhead.statistics().in_flight == 0  # nothing is held before the first step
    await anext(stream)
    await stream.aclose()
    assert bulkhead.statistics().in_flight == 0


async def test_permits_without_a_block():
    bulkhead = Bulkhead(2)
    assert [bulkhead.try_acquire() for _ in range(3)] == [True, True, False]
    bulkhead.release()
    assert bulkhead.try_acquire()
    bulkhead.release()
    bulkhead.release()
    with pytest.raises(RuntimeError, match="release\\(\\) without a permit"):
        bulkhead.release()
    assert bulkhead.statistics() == BulkheadStatistics(2, 0, 0)


async def test_permits_belong_to_nobody():
    bulkhead = Bulkhead(2)
    slot = bulkhead.slot()
    async with slot, slot:  # one task holds two, by one block
        assert bulkhead.statistics().in_flight == 2
    assert bulkhead.try_acquire()
    async with anyio.create_task_group() as group:

        async def give_back():
            bulkhead.release()

        group.start_soon(give_back)
    assert bulkhead.statistics() == BulkheadStatistics(2, 0, 0)


def test_a_refusal_is_an_event():
    async def scenario():
        bulkhead = Bulkhead(1, max_queue=1, max_wait=2)
        assert bulkhead.try_acquire()
        with capture_events() as events:
            with pytest.raises(BulkheadFullError, match=r"no permit came within 2 s"):
                await bulkhead.call(sleep, 0)
            bulkhead.resize(0)
            with pytest.raises(BulkheadFullError):
                await bulkhead.call(sleep, 0)
        found = [(each.name, wrong(each).bulkhead, wrong(each).waited) for each in events]
        assert found == [
            ("aiopatterns.bulkhead.rejected", "Bulkhead(1)", 2),
            ("aiopatterns.bulkhead.rejected", "Bulkhead(0)", 0),
        ]

    simulate(scenario)


def test_one_object_serves_successive_loops():
    bulkhead = Bulkhead(1, max_queue=1)

    async def scenario():
        async with anyio.create_task_group() as group:
            group.start_soon(bulkhead(sleep), 1)
            group.start_soon(bulkhead(sleep), 1)

    for _ in range(2):
        simulate(scenario)
    assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)


def test_a_free_permit_costs_no_turn_of_the_loop():
    async def scenario():
        async with Bulkhead(1).slot():
            pass
        await Bulkhead(1).call(at_once)

    coroutine = scenario()
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def at_once():
    pass


def test_bounds():
    assert Bulkhead(1).bound(3) == 3
    assert Bulkhead(1, max_queue=1, max_wait=2).bound(3) == 5
    assert math.isinf(Bulkhead(1, max_queue=1).bound(3))
    assert Bulkhead(1).calls() == 1
    assert Bulkhead(1).kind == "bulkhead"


def test_it_goes_on_where_another_stood():
    async def scenario():
        old = Bulkhead(2, max_queue=5)
        held = old(sleep)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(held, 1)
            await sleep(0.1)
            new = Bulkhead(3, max_queue=0)
            assert new.adopt(old)
            await sleep(0.1)
            assert new.statistics() == old.statistics() == BulkheadStatistics(0, 0, 3)
            with pytest.raises(BulkheadFullError):
                await new.call(sleep, 1)
        async with new.slot():
            assert old.statistics().in_flight == 1

    simulate(scenario)


def test_it_takes_over_only_what_is_alike():
    other: Policy = Timeout(1)
    assert not Bulkhead(1).adopt(other)
    assert not Bulkhead(1).adopt(Bulkhead(1, order="lifo"))


BAD = (
    (lambda: Bulkhead(-1), ValueError, "limit"),
    (lambda: Bulkhead(wrong(1.5)), TypeError, "limit"),
    (lambda: Bulkhead(wrong(math.nan)), TypeError, "limit"),
    (lambda: Bulkhead(wrong(True)), TypeError, "limit"),
    (lambda: Bulkhead(wrong(None)), TypeError, "limit"),
    (lambda: Bulkhead(1, max_queue=-1), ValueError, "max_queue"),
    (lambda: Bulkhead(1, max_queue=wrong(math.inf)), TypeError, "max_queue"),
    (lambda: Bulkhead(1, max_queue=1, max_wait=-1), ValueError, "max_wait"),
    (lambda: Bulkhead(1, max_queue=1, max_wait=math.nan), ValueError, "max_wait"),
    (lambda: Bulkhead(1, max_queue=1, max_wait=wrong("1")), TypeError, "max_wait"),
    (lambda: Bulkhead(1, max_wait=1), ValueError, "max_wait"),
    (lambda: Bulkhead(1, max_wait=math.inf), ValueError, "max_wait"),
    (lambda: Bulkhead(1, order=wrong("random")), ValueError, "order"),
    (lambda: Bulkhead(1, order=wrong(None)), ValueError, "order"),
    (lambda: Bulkhead(1).slot(priority=wrong("high")), TypeError, "priority"),
    (lambda: Bulkhead(1).slot(priority=wrong(math.nan)), ValueError, "priority"),
    (lambda: Bulkhead(1).slot(priority=wrong(None)), TypeError, "priority"),
    (lambda: Bulkhead(1).slot(priority=wrong(False)), TypeError, "priority"),
    (lambda: Bulkhead(1).resize(-1), ValueError, "limit"),
    (lambda: Bulkhead(1).resize(wrong(0.5)), TypeError, "limit"),
)


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(("make", "error", "name"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_clear_error(make, error, name):
    with pytest.raises(error, match=rf"^{name} must be"):
        make()


@pytest.mark.promise("resilience-bad-input")
def test_a_resize_that_is_refused_changes_nothing():
    bulkhead = Bulkhead(3)
    with pytest.raises(ValueError, match=r"^limit must be"):
        bulkhead.resize(-1)
    assert (bulkhead.limit, bulkhead.statistics()) == (3, BulkheadStatistics(3, 0, 0))


async def test_the_longest_wait_may_be_beyond_all_floats():
    bulkhead = Bulkhead(1, max_queue=1, max_wait=10**400)
    async with anyio.create_task_group() as group, bulkhead.slot():
        group.start_soon(bulkhead.call, anyio.sleep, 0)
        await anyio.wait_all_tasks_blocked()
        assert bulkhead.statistics().queued == 1
