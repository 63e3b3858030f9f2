from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from aiopatterns.backends.inbox import Inbox
from aiopatterns.backends.records import Notice
from aiopatterns.core.clock import call_later
from aiopatterns.testing import Trial, cancel_everywhere

if TYPE_CHECKING:
    from collections.abc import Callable


class Plain(Inbox):
    """An inbox of its own; ``out`` counts how often it was taken out."""

    def __init__(self, *, capacity: int = 5, on_gap: Callable[[], object] | None = None) -> None:
        super().__init__(capacity=capacity, on_gap=on_gap)
        self.out = 0

    async def _join(self) -> None:
        if self.out < 0:
            raise LookupError("nobody is there")

    def _leave(self) -> None:
        self.out += 1


ONE, TWO, THREE = (Notice("c", b"%d" % each) for each in (1, 2, 3))


async def test_what_was_received_is_read_to_the_end():
    async with Plain() as inbox:
        with pytest.raises(RuntimeError, match="open already; enter it only once"):
            await inbox.__aenter__()
        inbox.deliver(ONE)
        inbox.deliver(TWO)
    assert inbox.out == 1
    assert [each async for each in inbox] == [ONE, TWO]
    async with inbox:
        inbox.close()
    assert inbox.out == 3


async def test_one_that_could_not_be_put_in_force_is_not_open():
    inbox = Plain()
    inbox.out = -1
    for _ in range(2):
        with pytest.raises(LookupError, match="nobody is there"):
            await inbox.__aenter__()
    assert [each async for each in inbox] == []


async def test_losses_between_two_reads_are_one_gap():
    told: list[int] = []
    inbox = await Plain(capacity=1, on_gap=lambda: told.append(1)).__aenter__()
    for notice in (ONE, TWO, THREE):
        inbox.deliver(notice)
    assert (inbox.gaps, told) == (1, [1])
    assert await anext(inbox) == THREE
    inbox.deliver(ONE)
    inbox.deliver(TWO)
    assert (inbox.gaps, told) == (2, [1, 1])
    inbox.report_gap()
    assert (inbox.gaps, told) == (3, [1, 1, 1])


async def test_a_bad_callback_is_logged_and_no_callback_is_needed(caplog):
    def bad() -> None:
        raise RuntimeError("mine")

    Plain().report_gap()
    with caplog.at_level(logging.ERROR, "aiopatterns"):
        Plain(on_gap=bad).report_gap()
    assert "RuntimeError: mine" in caplog.text


def test_a_cancelled_wait_loses_nothing():
    def scenario() -> Trial:
        inbox, read = Plain(), list[Notice]()

        async def work() -> None:
            await inbox.__aenter__()
            inbox.deliver(ONE)
            read.append(await anext(inbox))
            waiting = anext(inbox)
            call_later(0, lambda: inbox.deliver(TWO))
            read.append(await waiting)

        async def check() -> None:
            inbox.close()
            rest = [each async for each in inbox]
            assert [*read, *rest] in ([ONE, TWO], [ONE])

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=1)
