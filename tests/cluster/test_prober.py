"""The failure detector of one node, step by step and without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aiopatterns.cluster import MemberState, Swim
from aiopatterns.cluster.membership import Membership
from aiopatterns.cluster.messages import Ack, Heard, Ping, Proxy, Update
from aiopatterns.cluster.prober import Prober

if TYPE_CHECKING:
    from aiopatterns.cluster.messages import Head

SWIM = Swim()


class Outlet:
    """Writes down what is sent and asked."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Head, str]] = []
        self.asked: list[tuple[str, str, int]] = []

    def send(self, address: str, head: Head, *, about: str = "") -> None:
        self.sent.append((address, head, about))

    def ask(self, name: str, address: str, number: int) -> None:
        self.asked.append((name, address, number))

    def take(self) -> list[tuple[str, Head, str]]:
        taken, self.sent = self.sent, []
        return taken


class Desk:
    """A prober, its table and its outlet, and the time."""

    def __init__(self, others: str, swim: Swim = SWIM) -> None:
        self.outlet = Outlet()
        self.members = Membership("me", "me:1", swim, now=0.0, changed=lambda *_: None)
        for name in others:
            self.members.heed(Update(name, f"{name}:1", 7, 0), 0.0)
        self.prober = Prober(self.members, swim, self.outlet, now=0.0)

    def begin(self) -> Ping:
        """Begin the next probe; returns its ping."""
        self.prober.step(self.prober.due)
        (*_, (_, ping, _)) = self.outlet.take()
        assert isinstance(ping, Ping)
        return ping

    def pass_timeout(self) -> None:
        self.prober.step(self.prober.due)

    def state(self, name: str) -> MemberState:
        return self.members.members[name].state


def test_the_first_probe_comes_within_a_period_and_then_one_each_period():
    desk = Desk("b")
    assert 0 <= desk.prober.due <= SWIM.probe
    desk.prober.step(desk.prober.due - 1e-9)
    assert desk.outlet.take() == []
    began = desk.prober.due
    ping = desk.begin()
    desk.prober.answered(ping.number)
    assert desk.prober.due == began + SWIM.probe
    desk.begin()
    assert desk.prober.probes == 2


def test_alone_there_is_nobody_to_probe():
    desk = Desk("")
    desk.prober.step(desk.prober.due)
    desk.prober.step(desk.prober.due)
    assert (desk.outlet.take(), desk.prober.probes) == ([], 0)


def test_an_answer_before_the_first_ping_says_nothing():
    desk = Desk("b")
    due = desk.prober.due
    desk.prober.heed(Ack(0), "b", "b:1")
    desk.prober.answered(0)
    assert desk.prober.due == due


def test_a_ping_that_is_answered_accuses_nobody():
    desk = Desk("b")
    ping = desk.begin()
    assert ping.target == "b"
    desk.prober.heed(Ack(ping.number), "b", "b:1")
    desk.prober.heed(Ack(ping.number), "b", "b:1")  # it came twice
    desk.begin()
    assert (desk.state("b"), desk.prober.failed) == (MemberState.ALIVE, 0)
    assert desk.outlet.asked == []


def test_who_does_not_answer_is_asked_by_other_roads_and_then_accused():
    desk = Desk("bcdef")
    ping = desk.begin()
    desk.pass_timeout()
    sent = desk.outlet.take()
    target = desk.members.members[ping.target]
    assert len({address for address, _, _ in sent}) == SWIM.indirect
    assert target.address not in {address for address, _, _ in sent}
    assert {head for _, head, _ in sent} == {Proxy(ping.number, target.name, target.address)}
    assert desk.outlet.asked == [(target.name, target.address, ping.number)]
    desk.begin()
    assert desk.state(target.name) is MemberState.SUSPECT
    assert desk.prober.failed == 1


def test_an_answer_by_another_road_is_as_good():
    desk = Desk("bcdef")
    ping = desk.begin()
    desk.pass_timeout()
    desk.prober.heed(Ack(ping.number), "c", "c:1")
    desk.begin()
    assert desk.state(ping.target) is MemberState.ALIVE


def test_an_answer_to_an_older_ping_says_nothing_of_this_one():
    desk = Desk("b")
    old = desk.begin()
    desk.pass_timeout()
    ping = desk.begin()
    desk.prober.heed(Ack(old.number), "b", "b:1")
    desk.pass_timeout()
    assert desk.outlet.asked[-1][2] == ping.number


@pytest.mark.parametrize(("heard", "score"), [(3, 0), (2, 1), (0, 3)])
def test_helpers_that_are_silent_speak_against_this_node_itself(heard, score):
    desk = Desk("bcdef")
    ping = desk.begin()
    desk.pass_timeout()
    desk.prober.heed(Heard(ping.number + 1), "c", "c:1")  # of another probe
    for _ in range(heard):
        desk.prober.heed(Heard(ping.number), "c", "c:1")
    began = desk.prober.due
    desk.begin()
    assert desk.prober.awareness.score == score
    desk.pass_timeout()
    assert desk.prober.due == pytest.approx(began + (score + 1) * SWIM.probe)


def test_more_word_than_there_are_helpers_changes_nothing():
    desk = Desk("bc")
    ping = desk.begin()
    desk.pass_timeout()
    for _ in range(5):
        desk.prober.heed(Heard(ping.number), "c", "c:1")
    desk.begin()
    assert desk.prober.awareness.score == 0


def test_without_helpers_each_failure_counts_once():
    desk = Desk("bc", Swim(indirect=0))
    desk.begin()
    desk.pass_timeout()
    assert desk.outlet.take() == []
    desk.begin()
    assert desk.prober.awareness.score == 1


def test_a_node_that_gets_answers_is_well_again():
    desk = Desk("b")
    desk.prober.awareness.worsen(2)
    for score in (1, 0, 0):
        desk.prober.answered(desk.begin().number)
        assert desk.prober.awareness.score == score


def test_pings_are_answered_and_the_asker_told_what_is_said_of_it():
    desk = Desk("b")
    desk.prober.heed(Ping(5, "me"), "b", "b:1")
    assert desk.outlet.take() == [("b:1", Ack(5), "b")]


def test_nobody_answers_in_the_name_of_another():
    desk = Desk("b")
    desk.prober.heed(Ping(5, "former"), "b", "b:1")
    assert desk.outlet.take() == []


def test_a_helper_says_that_it_has_heard_asks_and_passes_the_answer_on():
    desk = Desk("bc")
    desk.prober.heed(Proxy(5, "c", "c:1"), "b", "b:1")
    (heard, asked) = desk.outlet.take()
    assert heard == ("b:1", Heard(5), "")
    address, ping, about = asked
    assert isinstance(ping, Ping)
    assert (address, ping.target, about) == ("c:1", "c", "c")
    desk.prober.heed(Ack(ping.number), "c", "c:1")
    desk.prober.heed(Ack(ping.number), "c", "c:1")  # passed on once
    assert desk.outlet.take() == [("b:1", Ack(5), "")]


def test_a_helper_remembers_for_a_period_and_no_longer():
    desk = Desk("bc")
    desk.prober.heed(Proxy(5, "c", "c:1"), "b", "b:1")
    ping = desk.outlet.take()[1][1]
    assert isinstance(ping, Ping)
    desk.prober.answered(desk.begin().number)
    desk.prober.heed(Ack(ping.number), "c", "c:1")
    assert desk.outlet.take() == [("b:1", Ack(5), "")]
    desk.prober.heed(Proxy(6, "c", "c:1"), "b", "b:1")
    ping = desk.outlet.take()[1][1]
    assert isinstance(ping, Ping)
    for _ in range(2):
        desk.prober.answered(desk.begin().number)
    desk.prober.heed(Ack(ping.number), "c", "c:1")
    assert desk.outlet.take() == []


def test_help_is_bounded(monkeypatch):
    monkeypatch.setattr("aiopatterns.cluster.prober.MAX_RELAYS", 2)
    desk = Desk("bc")
    for number in range(4):
        desk.prober.heed(Proxy(number, "c", "c:1"), "b", "b:1")
    assert len(desk.outlet.take()) == 4


def test_the_dead_are_asked_now_and_then_and_told_that_they_count_as_dead():
    desk = Desk("bc")
    desk.members.bury("c", 1.0)
    asked = []
    for _ in range(200):
        desk.prober.step(desk.prober.due)
        sent = desk.outlet.take()
        asked += [each for each in sent if each[0] == "c:1"]
        desk.prober.answered(max(h.number for _, h, _ in sent if isinstance(h, Ping)))
    assert 50 < len(asked) < 150  # one in two: two are living
    assert {about for _, _, about in asked} == {"c"}


def test_those_who_have_left_are_left_alone():
    desk = Desk("bc")
    desk.members.heed(Update("c", "c:1", 7, 3), 1.0)
    for _ in range(50):
        desk.prober.answered(desk.begin().number)
    assert desk.prober.probes == 50


def test_time_in_which_the_loop_was_stuck_is_given_back():
    desk = Desk("b")
    ping = desk.begin()
    due = desk.prober.due
    desk.prober.stall(2.0)
    assert (desk.prober.due, desk.prober.awareness.score) == (due + 2.0, 1)
    desk.prober.step(due + 1.0)
    assert desk.outlet.asked == []
    desk.prober.answered(ping.number)
    assert desk.prober.due == pytest.approx(due + 2.0 + SWIM.probe - SWIM.timeout)
