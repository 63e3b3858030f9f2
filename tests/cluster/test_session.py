"""One run of a node: what it does with what comes, and at its own pulse."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster import (
    Member,
    MemberState,
    MemoryNetwork,
    MemoryTransport,
    PeerRejected,
    PeerStalled,
    Swim,
)
from aiopatterns.cluster.inbox import Inbox
from aiopatterns.cluster.membership import FORGET, MAX_AHEAD
from aiopatterns.cluster.messages import (
    Accepted,
    Ack,
    Answer,
    Check,
    Have,
    Heard,
    Letter,
    Packet,
    Ping,
    Proxy,
    Refused,
    Request,
    Rumour,
    Share,
    Sync,
    Synced,
    Update,
    answer_of,
    encode,
    packet_of,
    packet_with,
    piece,
    request_of,
)
from aiopatterns.cluster.rumours import KEEP_COUNT
from aiopatterns.cluster.session import Session
from aiopatterns.cluster.transport import MAX_PACKET
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError, RejectedError, UnknownVersionError
from aiopatterns.testing import capture_events, simulate

if TYPE_CHECKING:
    from collections.abc import Callable

BORN = 1_600_000_000_000
HELLO = MSGPACK.encode("hello")


class Counterpart:
    """The other end of a session: it keeps packets and answers as it is told."""

    def __init__(self, session: Session, inbox: Inbox) -> None:
        self.session = session
        self.inbox = inbox
        self.packets: list[Packet] = []
        self.asked: list[Request] = []
        self.answers: dict[type, Answer] = {}
        self.checks: list[tuple[str, str, int]] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def receive(self, data: bytes) -> None:
        self.packets.append(packet_of(data))

    async def answer(self, data: bytes) -> bytes:
        request = request_of(data)
        self.asked.append(request)
        self.meanwhile()
        return encode(self.answers[type(request.body)])

    def say(
        self, *updates: Update, head=None, rumours=(), cluster="prod", incarnation=BORN
    ) -> None:
        """Let the session receive a packet of the node ``b``."""
        me = Member("b", "b", MemberState.ALIVE, incarnation, 0.0)
        self.session.receive(
            packet_with(
                cluster,
                me,
                head=head,
                updates=[piece(each) for each in updates],
                rumours=[piece(each) for each in rumours],
            )
        )

    async def ask(self, body, *, sender="b", address="b", cluster="prod") -> Answer:
        """Let the session answer a request of the node ``b``."""
        return answer_of(await self.session.answer(encode(Request(cluster, sender, address, body))))

    def state(self, name: str) -> MemberState:
        return self.session.members.members[name].state


@asynccontextmanager
async def session():
    network = MemoryNetwork()
    mine, theirs = MemoryTransport(network), MemoryTransport(network)
    inbox = Inbox("a", 2)
    inbox.open()
    checks: list[tuple[str, str, int]] = []

    async def nobody(_data: bytes) -> bytes:
        raise AssertionError

    async with mine.serve("a", receive=lambda _: None, answer=nobody):
        made = Session(
            "a",
            "prod",
            Swim(),
            transport=mine,
            inbox=inbox,
            check=lambda *args: checks.append(args),
            changed=lambda _: None,
        )
        other = Counterpart(made, inbox)
        other.checks = checks
        async with theirs.serve("b", receive=other.receive, answer=other.answer):
            yield other


async def test_a_packet_is_heeded_as_a_whole():
    async with session() as other:
        other.say(
            Update("c", "c:1", 7, 1, "d"),
            head=Ping(5, "a"),
            rumours=[Rumour("c", 1, 1, HELLO)],
        )
        assert other.state("b") is MemberState.ALIVE  # whoever speaks is there
        assert other.state("c") is MemberState.SUSPECT
        assert len(other.inbox) == 1
        while not other.packets:
            await sleep(0.001)
        (answer,) = other.packets
        assert answer.head == Ack(5)
        assert [each.payload for each in answer.rumours] == [HELLO]
        assert (other.session.received, other.session.rejected) == (1, 0)


async def test_who_speaks_with_a_newer_incarnation_is_no_suspect_any_more():
    async with session() as other:
        other.say()
        other.session.members.accuse("b", monotonic())
        other.say()
        assert other.state("b") is MemberState.SUSPECT
        other.say(incarnation=BORN + 1)
        assert other.state("b") is MemberState.ALIVE
        assert not other.session.returned


async def test_who_was_dead_and_speaks_has_returned():
    async with session() as other:
        other.say()
        other.session.members.bury("b", monotonic())
        other.say()
        assert (other.state("b"), other.session.returned) == (MemberState.DEAD, {})
        other.say(incarnation=BORN + 1)
        assert (other.state("b"), list(other.session.returned)) == (MemberState.ALIVE, ["b"])


async def test_who_returns_again_and_again_is_noted_once():
    async with session() as other:
        other.say()
        for times in range(1, 10):
            other.session.members.bury("b", monotonic())
            other.say(incarnation=BORN + times)
        assert list(other.session.returned) == ["b"]


async def test_a_state_that_is_too_large_to_be_told_at_once_is_an_error_like_any_other():
    """Names of the greatest length for a whole table are more than one exchange may have."""
    async with session() as other:
        for number in range(9_000):
            name = f"{number:04}" + "n" * 250
            other.say(Update(name, "h" * 200 + ":80", BORN, 0))
        with pytest.raises(OSError, match="bytes are too many for one exchange"):
            await other.session.sync("b", joining=False)


async def test_a_rumour_pushes_out_none_that_still_goes_round():
    async with session() as other:
        rumours = other.session.rumours
        for _ in range(KEEP_COUNT):
            rumours.mine(HELLO, monotonic())
        heard = Rumour("c", 1, 1, HELLO)
        other.say(rumours=[heard])
        assert (other.session.deferred, rumours.knows(heard), len(other.inbox)) == (1, False, 0)
        while rumours.crowded:
            rumours.news.take(MAX_PACKET, 4)
        other.say(rumours=[heard])
        assert (other.session.deferred, rumours.knows(heard), len(other.inbox)) == (1, True, 1)


async def test_a_rumour_that_finds_no_room_is_taken_when_it_comes_again():
    async with session() as other:
        heard = [Rumour("c", 1, number, HELLO) for number in (1, 2, 3)]
        other.say(rumours=heard)
        assert (len(other.inbox), other.session.deferred) == (2, 1)
        other.inbox.clear()
        other.inbox.open()
        other.say(rumours=heard)
        assert (len(other.inbox), other.session.deferred) == (1, 1)


@pytest.mark.promise("cluster-peer-wire")
async def test_what_is_no_packet_of_this_cluster_is_counted_and_told_once():
    async with session() as other:
        with capture_events() as events:
            for data in (b"", b"\x01", b"\x02", b"GET / HTTP/1.1\r\n", bytes(70_000)):
                other.session.receive(data)
            other.say(cluster="test")
        assert (other.session.received, other.session.rejected) == (0, 6)
        assert [each for each in events if isinstance(each, PeerRejected)] == [
            PeerRejected("a", "an empty packet")
        ]
        assert set(other.session.members.members) == {"a"}


@pytest.mark.promise("cluster-peer-wire")
async def test_what_is_no_request_is_refused():
    async with session() as other:
        with pytest.raises(UnknownVersionError):
            await other.session.answer(b"\x02")
        with pytest.raises(CodecError):
            await other.session.answer(b"\x01\xc1")
        assert other.session.rejected == 2


async def test_another_cluster_is_told_so():
    async with session() as other:
        assert await other.ask(Check("a"), cluster="test") == Refused("cluster", "prod")
        assert other.session.rejected == 1


async def test_a_check_is_answered_with_the_incarnation():
    async with session() as other:
        born = other.session.members.me.incarnation
        assert await other.ask(Check("a")) == Accepted(born)
        assert await other.ask(Check("a", born)) == Accepted(born + 1)  # it contradicts
        assert await other.ask(Check("a", born)) == Accepted(born + 1)
        assert await other.ask(Check("x")) == Refused("stranger", "a")


async def test_letters_are_taken_while_there_is_room():
    async with session() as other:
        born = other.session.members.me.incarnation
        assert await other.ask(Letter("x", HELLO)) == Refused("stranger", "a")
        for _ in range(2):
            assert await other.ask(Letter("a", HELLO)) == Accepted(born)
        assert await other.ask(Letter("a", HELLO)) == Refused("full")


async def test_a_node_that_leaves_takes_no_letters():
    async with session() as other:
        other.session.members.leave(monotonic())
        assert await other.ask(Letter("a", HELLO)) == Refused("leaving")


NAMES = st.sampled_from(["a", "b", "c", "d", "x"])
INCARNATIONS = st.sampled_from([0, 1, BORN, BORN + 1, 1 << 53])
CLAIMS = st.builds(Update, NAMES, NAMES, INCARNATIONS, st.integers(0, 3), NAMES)
RUMOURS = st.builds(Rumour, NAMES, INCARNATIONS, st.integers(1, 9), st.binary(max_size=9))
NUMBERS = st.integers(0, 5)
HEADS = st.one_of(
    st.none(),
    st.builds(Ping, NUMBERS, NAMES),
    st.builds(Ack, NUMBERS),
    st.builds(Heard, NUMBERS),
    st.builds(Proxy, NUMBERS, NAMES, NAMES),
)
PACKETS = st.builds(
    Packet,
    st.just("prod"),
    NAMES,
    NAMES,
    INCARNATIONS,
    HEADS,
    st.lists(CLAIMS, max_size=4),
    st.lists(RUMOURS, max_size=4),
)


@pytest.mark.promise("cluster-peer-wire")
@given(st.lists(PACKETS | st.binary(max_size=9), max_size=30))
def test_whatever_strangers_say_the_books_are_kept(said):
    async def run() -> None:
        async with session() as other:
            members = other.session.members
            for each in said:
                data = each if isinstance(each, bytes) else b"\x01" + MSGPACK.encode(each)
                other.session.receive(data)
                await sleep(0.1)
                if members.superseded is None:
                    other.session.pulse(monotonic())
                living = {each.name for each in members.members.values() if each.living}
                assert set(members.ring.sample(99)) == living - {"a"}
                assert members.living == len(living)
                assert members.members["a"].state is MemberState.ALIVE
                assert len(other.inbox) <= 2

    simulate(run)


async def test_shared_broadcasts_are_taken_in():
    async with session() as other:
        born = other.session.members.me.incarnation
        assert await other.ask(Share([Rumour("c", 1, 1, HELLO)])) == Accepted(born)
        assert len(other.inbox) == 1


async def test_a_sync_gives_and_takes_the_whole_state():
    async with session() as other:
        other.session.rumours.mine(HELLO, monotonic())
        answer = await other.ask(Sync([Update("b", "b", 7, 0), Update("c", "c", 7, 1, "d")], []))
        assert isinstance(answer, Synced)
        assert [each.name for each in answer.members] == ["a", "b", "c"]
        assert [each.payload for each in answer.rumours] == [HELLO]
        again = await other.ask(Sync([], answer.have))
        assert isinstance(again, Synced)
        assert again.rumours == []


async def test_who_joins_gets_no_broadcast_of_before():
    async with session() as other:
        other.session.rumours.mine(HELLO, monotonic())
        answer = await other.ask(Sync([Update("b", "b", 7, 0)], [], joining=True))
        assert isinstance(answer, Synced)
        assert (answer.rumours, len(answer.have)) == ([], 1)


async def test_who_is_not_believed_is_told_so():
    async with session() as other:
        ahead = other.session.members.me.incarnation + 2 * MAX_AHEAD
        assert await other.ask(Sync([Update("b", "b", ahead, 0)], [])) == Refused("unbelieved")


async def test_a_sync_with_oneself_is_no_sync():
    async with session() as other:
        born = other.session.members.me.incarnation
        body = Sync([], [])
        assert await other.ask(body, sender="a", address="a") == Accepted(born)
        assert await other.ask(body, sender="a", address="x") == Refused("taken", "a")


def test_a_name_is_taken_while_its_node_answers_and_free_when_it_does_not():
    async def run() -> None:
        async with session() as other:
            other.say()
            other.answers[Check] = Accepted(BORN + 5)
            newcomer = Sync([Update("b", "b:2", BORN + 7, 0)], [])
            assert await other.ask(newcomer, address="b:2") == Refused("taken", "b")
            other.answers[Check] = Refused("stranger", "c")
            answer = await other.ask(newcomer, address="b:2")
            assert isinstance(answer, Synced)
            assert other.session.members.members["b"].address == "b:2"
            await other.ask(newcomer, address="b:2")
            assert len(other.asked) == 2  # not asked about its own address

    simulate(run)


def test_a_name_that_was_taken_over_meanwhile_is_not_buried():
    async def run() -> None:
        async with session() as other:
            other.say()
            other.answers[Check] = Refused("stranger", "c")
            other.meanwhile = partial(other.say, incarnation=BORN + 1)
            await other.ask(Sync([], []), address="b:2")
            assert other.state("b") is MemberState.ALIVE

    simulate(run)


async def test_to_sync_is_to_learn_who_and_what_is_there():
    async with session() as other:
        other.session.rumours.mine(HELLO, monotonic())
        theirs = [Rumour("b", BORN, 1, HELLO)]
        other.answers[Sync] = Synced(
            [Update("b", "b", BORN, 0), Update("c", "c", 7, 0)], [], theirs
        )
        other.answers[Share] = Accepted(BORN)
        assert await other.session.sync("b", joining=False) == "b"
        assert set(other.session.members.members) == {"a", "b", "c"}
        assert len(other.inbox) == 1
        first, second = (request.body for request in other.asked)
        assert isinstance(first, Sync)
        assert not first.joining
        assert isinstance(second, Share)  # what the other lacks
        assert [each.payload for each in second.rumours] == [HELLO, HELLO]


async def test_to_join_is_to_hear_what_is_said_from_then_on():
    async with session() as other:
        have = [Have("b", BORN, 1)]
        other.answers[Sync] = Synced([Update("b", "b", BORN, 0)], have, [])
        assert await other.session.sync("b", joining=True) == "b"
        other.say(rumours=[Rumour("b", BORN, 1, HELLO)])
        assert len(other.inbox) == 0
        (request,) = other.asked
        assert isinstance(request.body, Sync)
        assert request.body.joining
        other.answers[Sync] = Synced([Update("b", "b", BORN, 0)], have, [])
        await other.session.sync("b", joining=False)
        assert len(other.asked) == 2  # there was nothing to share


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            Refused("cluster", "test"),
            "the peer at 'b' is of cluster 'test', and this node of 'prod'",
        ),
        (Refused("unbelieved"), "the peer at 'b' does not take node 'a' in"),
        (Refused("taken", "a:9"), "the name 'a' is that of a living node at 'a:9'"),
    ],
)
async def test_who_refuses_a_sync_says_why(answer, text):
    async with session() as other:
        other.answers[Sync] = answer
        with pytest.raises(RejectedError, match=text) as caught:
            await other.session.sync("b", joining=True)
        assert caught.value.name == "a"


async def test_a_check_that_is_answered_counts_for_the_ping_and_ends_a_suspicion():
    async with session() as other:
        other.say()
        other.session.members.accuse("b", monotonic())
        other.answers[Check] = Accepted(BORN + 1)
        await other.session.check("b", "b", 0)
        assert other.state("b") is MemberState.ALIVE
        assert other.asked[0].body == Check("b", BORN)  # it is told what is said of it
        await other.session.check("b", "b", 0)
        assert other.asked[1].body == Check("b", 0)


async def test_a_check_that_nobody_answers_changes_nothing():
    async with session() as other:
        other.say()
        other.session.members.accuse("b", monotonic())
        await other.session.check("b", "nowhere", 0)
        other.answers[Check] = Refused("stranger", "c")
        await other.session.check("b", "b", 0)
        assert other.state("b") is MemberState.SUSPECT


async def test_a_message_goes_to_the_address_of_its_member():
    async with session() as other:
        other.say()
        other.answers[Letter] = Refused("full")
        assert await other.session.deliver("b", HELLO, 5.0) == Refused("full")
        assert other.asked[0].body == Letter("b", HELLO)


def test_the_pulse_probes_gossips_and_asks_suspects_a_last_time():
    async def run() -> None:
        async with session() as other:
            other.say()
            accused = monotonic()
            other.session.members.accuse("b", accused)
            low, _ = Swim().patience(2)
            while other.state("b") is MemberState.SUSPECT:
                await sleep(max(other.session.due - monotonic(), 0))
                other.session.pulse(monotonic())
            took = monotonic() - accused
            assert low <= took <= low + 2 * Swim().gossip
            assert ("b", "b", 0) in other.checks
            heads = [packet.head for packet in other.packets]
            assert any(isinstance(head, Ping) for head in heads)
            assert None in heads

    simulate(run)


def test_a_pulse_that_comes_late_gives_the_others_time():
    async def run() -> None:
        async with session() as other:
            other.say()
            other.session.members.accuse("b", monotonic())
            with capture_events() as events:
                other.session.pulse(other.session.due + 60)
            (stalled,) = (each for each in events if isinstance(each, PeerStalled))
            assert stalled.node == "a"
            assert stalled.seconds == pytest.approx(60)
            assert other.state("b") is MemberState.SUSPECT
            assert (other.session.stalls, other.session.prober.awareness.score) == (1, 1)
            other.session.pulse(other.session.due + 0.09)  # a little late is not stuck
            assert other.session.stalls == 1
            other.session.pulse(other.session.due + 60)  # without a listener
            assert other.session.stalls == 2

    simulate(run)


def test_a_pulse_ends_a_node_whose_name_is_another_ones():
    async def run() -> None:
        async with session() as other:
            born = other.session.members.me.incarnation
            other.say(Update("a", "a:2", born + 1, 0))
            with pytest.raises(RejectedError, match="process at 'a:2' has taken the name 'a'"):
                other.session.pulse(monotonic())

    simulate(run)


def test_what_is_long_gone_is_forgotten():
    async def run() -> None:
        async with session() as other:
            other.say(rumours=[Rumour("c", 1, 1, HELLO)])
            other.session.members.bury("b", monotonic())
            await sleep(FORGET + 1)
            other.session.tidy()
            assert set(other.session.members.members) == {"a"}
            assert len(other.session.rumours) == 0

    simulate(run)


async def test_the_prober_sends_and_asks_through_it():
    async with session() as other:
        other.session.send("b", Ack(5), about="b")
        other.session.ask("b", "b", 17)
        assert other.checks == [("b", "b", 17)]
        while not other.packets:
            await sleep(0.001)
        assert other.packets[0].head == Ack(5)
