"""The crew: lanes and workers without a log."""

from __future__ import annotations

from typing import Any

import anyio

from aiopatterns.backends import open_backend
from aiopatterns.core.clock import sleep
from aiopatterns.messaging import Envelopes, Message
from aiopatterns.messaging.claim import Claim
from aiopatterns.messaging.fetcher import Fetcher
from aiopatterns.messaging.fetchterms import FetchTerms
from aiopatterns.messaging.judge import Judge
from aiopatterns.messaging.streamcrew import StreamCrew
from aiopatterns.resilience.backoff import Constant

TERMS = FetchTerms(
    stream="s", group="g", consumer="c", prefetch=10, max_deliveries=2, claim_idle=30.0
)


def parts() -> tuple[Fetcher, Judge]:
    fetcher = Fetcher(open_backend("memory://").log("s"), TERMS, Envelopes(), admit=print)
    return fetcher, Judge(fetcher, Constant(60.0))


def hold(fetcher: Fetcher, number: int, key: str | None = None) -> Claim:
    claim = Claim(f"{number}-0", Message(type="t", payload=number, key=key), 1)
    fetcher.held[claim.id] = claim
    return claim


async def test_what_came_before_the_start_is_handled_after_it():
    got: list[int] = []
    crew = StreamCrew(lambda message: got.append(message.payload), concurrency=2)
    fetcher, judge = parts()
    crew.admit(hold(fetcher, 1))
    async with anyio.create_task_group() as tasks:
        crew.start(tasks, fetcher, judge)
        while fetcher.tally.acked < 1:
            await sleep(0.001)
        crew.admit(hold(fetcher, 2))  # the worker that is there is woken
        while fetcher.tally.acked < 2:
            await sleep(0.001)
        tasks.cancel_scope.cancel()
        crew.admit(hold(fetcher, 3))  # nobody is there any more
    assert got == [1, 2]


async def test_a_lane_goes_on_when_its_head_is_lost_while_it_waits_for_its_next_attempt():
    got: list[int] = []

    async def handler(message: Message) -> None:
        if message.payload == 1:
            raise ValueError("x")
        got.append(message.payload)

    crew = StreamCrew(handler, concurrency=2, key=lambda message: message.key)
    fetcher, judge = parts()
    async with anyio.create_task_group() as tasks:
        crew.start(tasks, fetcher, judge)
        head = hold(fetcher, 1, "k")
        crew.admit(head)
        crew.admit(hold(fetcher, 2, "k"))
        while not head.rests:
            await sleep(0.001)
        assert got == []
        lost = fetcher.held.pop("2-0")
        fetcher.held["2-0"] = lost
        fetcher.give_up()
        crew.admit(hold(fetcher, 3, "k"))
        while fetcher.tally.acked < 1:
            await sleep(0.001)
        tasks.cancel_scope.cancel()
    assert got == [3]
    assert fetcher.tally.lost == 2


async def test_a_handler_may_return_anything_that_can_be_awaited():
    done: list[int] = []

    class Later:
        def __await__(self) -> Any:
            yield from sleep(0).__await__()
            done.append(1)

    crew = StreamCrew(lambda _: Later(), concurrency=1)
    fetcher, judge = parts()
    async with anyio.create_task_group() as tasks:
        crew.start(tasks, fetcher, judge)
        crew.admit(hold(fetcher, 1))
        while fetcher.tally.acked < 1:
            await sleep(0.001)
        tasks.cancel_scope.cancel()
    assert done == [1]


async def test_handlers_that_never_wait_give_the_loop_its_turns():
    turns, over = 0, False

    async def watch() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await sleep(0)

    crew = StreamCrew(lambda _: None, concurrency=1)
    fetcher, judge = parts()
    async with anyio.create_task_group() as tasks:
        crew.start(tasks, fetcher, judge)
        for number in range(1_000):
            crew.admit(hold(fetcher, number))
        tasks.start_soon(watch)
        while fetcher.tally.acked < 1_000:
            await sleep(0)
        over = True
        tasks.cancel_scope.cancel()
    assert turns >= 10
