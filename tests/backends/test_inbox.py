from __future__ import annotations

import logging

import pytest

from aiopatterns.backends.inbox import Inbox
from aiopatterns.backends.records import Notice
from aiopatterns.core.clock import call_later
from aiopatterns.testing import Trial, cancel_everywhere

ONE, TWO, THREE = (Notice("c", b"%d" % each) for each in (1, 2, 3))


async def test_what_was_received_is_read_to_the_end():
    inbox = Inbox(capacity=5, on_gap=None)
    inbox._begin()
    with pytest.raises(RuntimeError, match="open already; enter it only once"):
        inbox._begin()
    inbox.deliver(ONE)
    inbox.deliver(TWO)
    inbox._end()
    assert [each async for each in inbox] == [ONE, TWO]
    inbox._begin()
    inbox._end()


async def test_losses_between_two_reads_are_one_gap():
    told: list[int] = []
    inbox = Inbox(capacity=1, on_gap=lambda: told.append(1))
    inbox._begin()
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

    Inbox(capacity=1, on_gap=None).report_gap()
    with caplog.at_level(logging.ERROR, "aiopatterns"):
        Inbox(capacity=1, on_gap=bad).report_gap()
    assert "RuntimeError: mine" in caplog.text


def test_a_cancelled_wait_loses_nothing():
    def scenario() -> Trial:
        inbox, read = Inbox(capacity=5, on_gap=None), list[Notice]()
        inbox._begin()

        async def work() -> None:
            inbox.deliver(ONE)
            read.append(await anext(inbox))
            waiting = anext(inbox)
            call_later(0, lambda: inbox.deliver(TWO))
            read.append(await waiting)

        async def check() -> None:
            inbox._end()
            rest = [each async for each in inbox]
            assert [*read, *rest] in ([ONE, TWO], [ONE])

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=1)
