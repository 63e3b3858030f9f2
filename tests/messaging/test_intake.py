"""The intake: every message accounted for, order by key, room, handlers of every kind."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from aiopatterns.core.clock import Home, monotonic, rng, sleep
from aiopatterns.core.context import bind_deadline, deadline
from aiopatterns.messaging.brokerevents import BrokerHandlerFailed, BrokerMessagesDropped
from aiopatterns.messaging.frames import Outcome
from aiopatterns.messaging.intake import Intake, Terms
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.remote import LOST, raised
from aiopatterns.testing import capture_events, explore

VALUE, ERROR, ABSENT = Outcome.VALUE, Outcome.ERROR, Outcome.ABSENT


def message(payload: object, *, key: str | None = None, deadline: float | None = None) -> Message:
    return Message(type="t", topic="t", payload=payload, key=key, deadline=deadline)


def terms(**options: Any) -> Terms:
    return Terms(**{
        "group": None, "concurrency": 1, "capacity": 10, "overflow": "drop_old", "key": None
    } | options)  # fmt: skip


@asynccontextmanager
async def taking(handler: Any, **options: Any):
    """An intake, and what it answered by payload."""
    answers: list[tuple[Any, Outcome, Any]] = []

    def answer(given: Message, outcome: Outcome, value: Any) -> None:
        text = raised(value).type if outcome is ERROR else value
        answers.append((given.payload, outcome, text))

    async with anyio.create_task_group() as group:
        intake = Intake(
            "t", handler, terms(**options), home=Home(), answer=answer, spawn=group.start_soon
        )
        yield intake, answers
        await intake.quiet()
        group.cancel_scope.cancel()
    conserved(intake)


def conserved(intake: Intake) -> None:
    s = intake.statistics()
    ended = s.handled + s.failed + s.dropped + s.expired + s.cancelled
    assert s.received == ended + s.waiting + s.active


async def test_handlers_of_every_kind():
    async def coroutine(given: Message) -> Any:
        await sleep(0)
        return given.payload

    class Callable:
        async def __call__(self, given: Message) -> Any:
            return given.payload

    class Awaitable:
        def __init__(self, given: Message) -> None:
            self.given = given

        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return self.given.payload

    async def two(first: int, given: Message) -> Any:
        return first + given.payload

    kinds = (coroutine, lambda m: m.payload, Callable(), Awaitable, partial(two, 0))
    for handler in kinds:
        async with taking(handler) as (intake, answers):
            for number in range(3):
                assert intake.offer(message(number))
                conserved(intake)
        assert answers == [(n, VALUE, n) for n in range(3)]
        assert not intake.busy


async def test_workers_come_as_they_are_needed_and_no_more():
    active = peak = 0

    async def handler(given: Message) -> None:
        nonlocal active, peak
        active, peak = active + 1, max(peak, active + 1)
        await sleep(0.001)
        active -= 1

    for concurrency in (1, 3, 16):
        peak = 0
        async with taking(handler, concurrency=concurrency, capacity=100) as (intake, answers):
            for number in range(50):
                intake.offer(message(number))
        assert peak == concurrency
        assert len(answers) == 50


async def test_handlers_that_never_suspend_give_the_loop_its_turns():
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await sleep(0)

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        async with taking(lambda m: None, capacity=1_000) as (intake, answers):
            for number in range(1_000):
                intake.offer(message(number))
        group.cancel_scope.cancel()
    assert len(answers) == 1_000
    assert turns > 10


def test_order_by_key_under_many_seeds():
    async def main() -> None:
        handled: dict[str, list[int]] = {}
        running: set[str] = set()

        async def handler(given: Message) -> None:
            key = str(given.key)
            assert key not in running
            running.add(key)
            await sleep(0.001 * rng().random())
            handled.setdefault(key, []).append(given.payload)
            running.remove(key)

        options = {"concurrency": 4, "capacity": 100, "key": lambda m: m.key}
        async with taking(handler, **options) as (intake, answers):
            for number in range(40):
                intake.offer(message(number, key=rng().choice("abcdef")))
                if number % 10 == 0:
                    await sleep(0.001)
        assert len(answers) == 40
        assert all(numbers == sorted(numbers) for numbers in handled.values())

    explore(main, range(200))


async def test_a_key_that_cannot_be_had_is_no_order():
    def key(given: Message) -> Any:
        if given.payload == 1:
            raise ValueError("no key")
        return [] if given.payload == 2 else None

    async with taking(lambda m: m.payload, key=key) as (intake, answers):
        intake.offer(message(1))  # nobody listens
    assert answers == [(1, VALUE, 1)]
    with capture_events() as events:
        async with taking(lambda m: m.payload, key=key) as (intake, answers):
            for number in range(4):
                intake.offer(message(number))
    assert answers == [(n, VALUE, n) for n in range(4)]
    failed = [each.error for each in events if isinstance(each, BrokerHandlerFailed)]
    assert failed == ["ValueError: no key", "TypeError: unhashable type: 'list'"]


async def stuck_in(release: anyio.Event, given: Message) -> Any:
    await release.wait()
    return given.payload


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "keyed"])
async def test_no_room_drops_the_oldest(keyed: bool):
    release = anyio.Event()
    key = (lambda m: m.key) if keyed else None
    with capture_events() as events:
        async with taking(partial(stuck_in, release), capacity=3, key=key) as (intake, answers):
            for number in range(8):
                assert intake.offer(message(number, key="k"))
                await wait_all_tasks_blocked()
                conserved(intake)
            release.set()
    assert [each[0] for each in answers] == [1, 2, 3, 4, 0, 5, 6, 7]
    assert [each[2] for each in answers[:4]] == ["QueueFullError"] * 4
    dropped = [each for each in events if isinstance(each, BrokerMessagesDropped)]
    assert dropped == [BrokerMessagesDropped("t", 3, "drop_old")]  # once, until it is empty


async def test_dropping_the_first_of_a_key_lets_the_next_of_it_be_handled():
    release = anyio.Event()
    options = {"capacity": 3, "key": lambda m: m.key}
    async with taking(partial(stuck_in, release), **options) as (intake, answers):
        intake.offer(message(0, key="a"))
        await wait_all_tasks_blocked()
        for number, key in enumerate("bbccc", 1):
            intake.offer(message(number, key=key))
        conserved(intake)
        release.set()
    assert sorted(each[0] for each in answers if each[1] is VALUE) == [0, 2, 4, 5]


@pytest.mark.parametrize(("overflow", "goes_on"), [("drop_new", True), ("fail", False)])
async def test_no_room_drops_the_newest(overflow: str, goes_on: bool):
    release = anyio.Event()
    handler = partial(stuck_in, release)
    async with taking(handler, capacity=2, overflow=overflow) as (intake, answers):
        taken: list[bool] = []
        for number in range(5):
            taken.append(intake.offer(message(number)))
            await wait_all_tasks_blocked()
        release.set()
    assert taken == [True, True, True, goes_on, goes_on]
    assert [each[0] for each in answers] == [3, 4, 0, 1, 2]


async def test_what_is_too_late_is_not_handled():
    async with taking(lambda m: m.payload) as (intake, answers):
        intake.offer(message(0, deadline=monotonic() - 1.0))
        intake.offer(message(1, deadline=monotonic() + 60.0))
    assert answers == [(1, VALUE, 1)]
    assert intake.statistics().expired == 1


async def test_the_deadline_of_the_subscriber_is_not_that_of_the_messages():
    with bind_deadline(monotonic() + 5.0):
        async with taking(lambda m: deadline()) as (intake, answers):
            intake.offer(message(0))
            intake.offer(message(1, deadline=monotonic() + 60.0))
    assert answers[0][2] is None
    assert answers[1][2] > monotonic() + 50.0


async def test_errors_of_every_kind_are_answered():
    async def handler(given: Message) -> None:
        if given.payload == 2:
            await sleep(0)
        raise given.payload if isinstance(given.payload, BaseException) else ValueError

    payloads = (1, 2, asyncio.CancelledError(), KeyError("k"))
    async with taking(handler) as (intake, answers):
        for each in payloads:
            intake.offer(message(each))
    assert [each[2] for each in answers] == [
        "ValueError",
        "ValueError",
        "CancelledError",
        "KeyError",
    ]
    assert intake.statistics().failed == 4


async def test_an_error_without_words_is_told_and_stops_nothing():
    class Mute(Exception):
        def __repr__(self) -> str:
            raise RuntimeError

        __str__ = __repr__

    def handler(given: Message) -> None:
        raise Mute

    with capture_events() as events:
        async with taking(handler) as (intake, answers):
            intake.offer(message(1))
            intake.offer(message(2))
    assert answers == [(1, ERROR, "Mute"), (2, ERROR, "Mute")]
    assert [e.error for e in events if isinstance(e, BrokerHandlerFailed)] == ["Mute", "Mute"]


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "keyed"])
async def test_closed_it_handles_what_waits_and_its_workers_end(keyed: bool):
    release, handled = anyio.Event(), list[Any]()

    async def handler(given: Message) -> None:
        await release.wait()
        handled.append(given.payload)

    options = terms(concurrency=3, key=(lambda m: m.key) if keyed else None)
    async with anyio.create_task_group() as group:  # ends when all workers have
        intake = Intake(
            "t",
            handler,
            options,
            home=Home(),
            answer=lambda given, outcome, value: None,
            spawn=group.start_soon,
        )
        release.set()
        for number in range(3):
            intake.offer(message(number, key="k"))
        await wait_all_tasks_blocked()
        release = anyio.Event()
        for number in range(3, 9):
            intake.offer(message(number, key="ab"[number % 2]))
        await wait_all_tasks_blocked()
        intake.close()
        await wait_all_tasks_blocked()
        release.set()
    assert sorted(handled) == list(range(9))
    conserved(intake)
    assert intake.statistics().handled == 9


async def test_an_interrupted_handler_is_answered_and_what_waits_is_given_back():
    answers: list[tuple[Any, Outcome, Any]] = []

    def answer(given: Message, outcome: Outcome, value: Any) -> None:
        answers.append((given.payload, outcome, raised(value).code if outcome is ERROR else value))

    async with anyio.create_task_group() as group:
        stuck = partial(stuck_in, anyio.Event())
        options = {"concurrency": 2, "key": lambda m: m.key}
        intake = Intake(
            "t", stuck, terms(**options), home=Home(), answer=answer, spawn=group.start_soon
        )
        for number, key in enumerate("abbcd"):
            intake.offer(message(number, key=key))
        await wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    intake.abandon()
    assert sorted(answers, key=lambda each: each[0]) == [
        (0, ERROR, LOST), (1, ERROR, LOST), (2, ABSENT, b""), (3, ABSENT, b""), (4, ABSENT, b"")
    ]  # fmt: skip
    conserved(intake)
    assert intake.statistics().cancelled == 5
    assert not intake.busy


async def test_what_comes_while_the_workers_are_cancelled_is_given_back():
    answers: list[Outcome] = []
    async with anyio.create_task_group() as group:
        intake = Intake(
            "t",
            lambda m: None,
            terms(),
            home=Home(),
            answer=lambda given, outcome, value: answers.append(outcome),
            spawn=group.start_soon,
        )
        intake.offer(message(0))
        await wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        intake.offer(message(1))
    intake.abandon()
    assert answers == [VALUE, ABSENT]
    conserved(intake)


async def test_the_end_of_the_process_passes_a_handler():
    class End(BaseException):
        pass

    def handler(given: Message) -> None:
        raise End

    with pytest.raises(BaseExceptionGroup) as ended:
        async with taking(handler) as (intake, _):
            intake.offer(message(0))
    assert ended.group_contains(End)
