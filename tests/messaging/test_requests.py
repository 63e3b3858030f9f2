"""Requests: each ends once, by whatever comes first, and a late reply is counted."""

from __future__ import annotations

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_deadline
from aiopatterns.core.errors import (
    BackendUnavailableError,
    ClosedError,
    RemoteError,
    TimeoutExceededError,
)
from aiopatterns.messaging.remote import LOST
from aiopatterns.messaging.requests import Pending, Requests
from aiopatterns.messaging.routes import Peer
from aiopatterns.testing import Trial, cancel_everywhere, simulate


def asked(requests: Requests, peer: Peer, *, timeout: float = 60.0) -> Pending:
    pending = requests.open("topic", timeout)
    pending.peer = peer
    return pending


async def test_a_reply_ends_it_before_or_after_the_wait():
    requests, peer = Requests(), Peer("a")
    pending = asked(requests, peer)
    assert (len(requests), pending.wanted) == (1, True)
    assert requests.find(pending.number) is pending
    pending.reply("early")
    assert not pending.wanted
    assert await pending is True
    assert pending.value == "early"
    pending.leave()
    pending = asked(requests, peer)
    async with anyio.create_task_group() as group:

        async def later() -> None:
            pending.reply(None)

        group.start_soon(later)
        assert await pending is True
    pending.leave()
    assert len(requests) == 0


async def test_what_comes_second_changes_nothing():
    requests, peer = Requests(), Peer("a")
    pending = asked(requests, peer)
    pending.reply(1)
    pending.reply(2)
    pending.fail(ValueError())
    pending.absent()
    assert requests.find(pending.number) is None
    assert await pending is True
    assert (pending.value, requests.late) == (1, 1)
    pending.leave()
    assert requests.find(pending.number) is None
    assert requests.late == 2


async def test_who_is_not_there_is_asked_once_and_the_next_may_be():
    requests, first, second = Requests(), Peer("a"), Peer("b")
    pending = asked(requests, first)
    pending.told(0)
    assert await pending is False
    assert first.gone_until > monotonic()
    assert pending.wanted
    pending.peer = second
    pending.told(1)  # somebody has received it: the reply decides
    assert pending.wanted
    pending.absent()
    assert await pending is False
    assert second.gone_until == 0.0
    pending.told(0)  # nobody is being asked
    assert pending.wanted
    pending.peer = second
    pending.told(BackendUnavailableError("away"))
    with pytest.raises(BackendUnavailableError, match="away"):
        await pending
    pending.leave()


async def test_what_ends_it_before_the_next_is_asked_ends_it():
    requests, peer = Requests(), Peer("a")
    pending = asked(requests, peer)
    pending.absent()
    pending.expire()  # in the same turn
    with pytest.raises(TimeoutExceededError):
        await pending
    pending.leave()
    pending = asked(requests, peer)
    pending.absent()
    requests.close()
    with pytest.raises(ClosedError):
        await pending
    pending.leave()
    pending = asked(requests, peer)
    pending.absent()
    pending.reply("after all")
    assert await pending is True
    pending.leave()


async def test_a_lost_connection_ends_those_from_afar():
    requests, here, there = Requests(), Peer("here"), Peer("there")
    near, far, not_asked = asked(requests, here), asked(requests, there), requests.open("t", 60)
    requests.missed(here)
    with pytest.raises(BackendUnavailableError, match="a reply from 'topic' was due"):
        await far
    assert near.wanted
    assert not_asked.wanted
    for each in (near, far, not_asked):
        each.leave()


async def test_the_death_of_a_peer_ends_its_requests():
    requests, dead, alive = Requests(), Peer("dead"), Peer("alive")
    one, two = asked(requests, dead), asked(requests, alive)
    requests.bury(dead)
    with pytest.raises(RemoteError) as lost:
        await one
    assert lost.value.code == LOST
    assert two.wanted
    requests.close()
    with pytest.raises(ClosedError, match="'topic' was asked"):
        await two
    for each in (one, two):
        each.leave()


def test_deadlines():
    async def main() -> None:
        requests, peer = Requests(), Peer("a")
        pending = asked(requests, peer, timeout=7.0)
        assert pending.deadline == 7.0
        with pytest.raises(TimeoutExceededError, match="no reply from 'topic' within 7 s"):
            await pending
        assert monotonic() == 7.0
        pending.leave()
        with bind_deadline(9.0):  # comes before the timeout
            pending = asked(requests, peer)
        assert pending.deadline == 9.0
        with pytest.raises(TimeoutExceededError, match="no reply from 'topic' within 2 s"):
            await pending
        assert monotonic() == 9.0
        pending.leave()
        with bind_deadline(9.5):
            asked(requests, peer).leave()  # takes its timer with it
        with bind_deadline(8.0):  # is over already
            pending = asked(requests, peer)
        with pytest.raises(TimeoutExceededError, match="within 0 s"):
            await pending
        pending.leave()
        many = [asked(requests, peer, timeout=timeout) for timeout in range(1, 101)]
        await sleep(100)
        assert not any(each.wanted for each in many)
        for each in many:
            each.leave()

    simulate(main)


def test_cancelled_it_leaves_nothing():
    def scenario() -> Trial:
        requests = Requests()

        async def work() -> None:
            pending = asked(requests, Peer("a"), timeout=1.0)
            try:
                with pytest.raises(TimeoutExceededError):
                    await pending
            finally:
                pending.leave()

        def check() -> None:
            assert len(requests) == 0

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=1)
