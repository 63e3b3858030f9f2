from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from aiopatterns.core.clock import Alarms, Home
from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway.answer import Answer
from aiopatterns.testing import Trial, cancel_everywhere, simulate

HIGH = 64 * 1024


class Source:
    """A connection that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.answer: Answer | None = None

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def late(self) -> None:
        self.told.append("late")
        assert self.answer is not None
        self.answer.fail(UpstreamError(name="s", kind="timeout", sent=True))

    def drop(self) -> None:
        self.told.append("drop")

    async def settled(self) -> None:
        self.told.append("settled")


def made(seconds: float = 60.0) -> tuple[Answer, Source]:
    source = Source()
    answer = source.answer = Answer(Home(), source, Alarms(seconds))
    return answer, source


async def test_a_small_answer_is_whole_when_its_head_is_seen():
    answer, source = made()
    assert (answer.status, answer.whole()) == (0, None)
    head = answer.arrival()
    answer.headed(200, [(b"a", b"1")])
    answer.put(b"he")
    answer.put(b"llo")
    answer.finish()
    await head
    assert (answer.status, answer.headers) == (200, [(b"a", b"1")])
    assert answer.whole() == b"hello"
    assert answer.whole() == b""
    await answer.aclose()
    assert source.told == ["settled"]


async def test_a_reader_waits_for_each_chunk_and_for_the_end():
    answer, _ = made()
    answer.headed(200, [])
    seen: list[bytes] = []

    async def take() -> None:
        async for chunk in answer:
            seen.append(chunk)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        for chunk in (b"one", b"two"):
            await wait_all_tasks_blocked()
            answer.put(chunk)
        await wait_all_tasks_blocked()
        assert seen == [b"one", b"two"]
        answer.finish()
    assert answer.whole() == b""


async def test_what_came_before_an_error_is_read_first():
    answer, source = made()
    answer.headed(200, [])
    answer.put(b"half")
    error = UpstreamError(name="s", kind="closed", sent=True)
    answer.fail(error)
    assert await anext(answer) == b"half"
    for _ in range(2):
        with pytest.raises(UpstreamError) as caught:
            await anext(answer)
        assert caught.value is error
    assert answer.whole() is None
    await answer.aclose()
    assert source.told == ["drop", "settled"]


async def test_what_is_held_is_bounded():
    answer, source = made()
    answer.headed(200, [])
    answer.put(b"x" * HIGH)
    assert source.told == []
    answer.put(b"y")
    answer.put(b"z")
    assert source.told == ["pause"]
    assert await anext(answer) == b"x" * HIGH + b"yz"
    assert source.told == ["pause", "resume"]
    answer.put(b"x" * (HIGH + 1))
    answer.finish()
    assert len(answer.whole() or b"") == HIGH + 1
    assert source.told == ["pause", "resume"] * 2


def test_a_service_that_is_silent_is_late():
    async def scenario() -> None:
        answer, source = made(3.0)
        answer.headed(200, [])
        answer.put(b"half")
        assert await anext(answer) == b"half"
        with pytest.raises(UpstreamError) as caught:
            await anext(answer)
        assert caught.value.kind == "timeout"
        assert anyio.current_time() == 3.0
        assert source.told == ["late"]

    simulate(scenario)


async def test_news_for_a_reader_that_was_cancelled_is_kept():
    answer, source = made()
    with anyio.move_on_after(0):
        await anext(answer)
    assert source.told == ["drop"]
    answer.put(b"late")
    answer.fail(UpstreamError(name="s", kind="closed", sent=True))
    assert await anext(answer) == b"late"


def test_cancelled_anywhere_the_connection_is_closed():
    def scenario() -> Trial:
        answer, source = made()
        ended: list[bool] = []

        async def work() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed)
                async for _ in answer:
                    pass
                ended.append(True)

        async def feed() -> None:
            for _ in range(3):
                await wait_all_tasks_blocked()
                answer.put(b"x")
            answer.finish()

        def check() -> None:
            assert ended or "drop" in source.told

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=3)
