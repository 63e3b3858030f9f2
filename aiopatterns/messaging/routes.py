"""Routes: who listens where, among all brokers, and who gets a message.

Every broker lists its subscriptions in one directory, and every broker watches that. So a sender
knows the receivers of a topic without asking anybody::

    directory --> peers, with their places --> tree of patterns --> plan of a topic
    broker A:  1 "order.*"  group billing      "order.paid":  group billing: A1, B7 in turn
    broker B:  7 "order.>"  group billing                     each of:       C2
    broker C:  2 "order.paid"

* Of a group one place gets each message, in turn. Places of one group under different patterns are
  one group, as in NATS.
* A request is answered by the most specific pattern; among equals by a group before a place
  without one, then by the group's name. So a service that listens on ``>`` to keep a record never
  answers for others. A place that does not *answer* gets what is published, and nothing else.
* A peer whose inbox nobody reads is *gone*: it is passed over for :data:`GONE` seconds, for it may
  only be connecting anew.
* A peer that the directory no longer lists keeps its places for :data:`KEEP` seconds more: a
  server that was restarted without its data lists nobody, until all have come back.

Everything here is synchronous, for one loop.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import monotonic, rng
from aiopatterns.messaging.listing import inbox_of, is_member, read_listing
from aiopatterns.messaging.topics import ANY, REST, TopicTrie

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from aiopatterns.core.telemetry import Subscription
    from aiopatterns.messaging.listing import Listed

__all__ = ["GONE", "KEEP", "Group", "Peer", "Place", "Plan", "Routes"]

#: Seconds for which a peer is passed over after its inbox was found without a reader.
GONE: Final = 1.0
#: Seconds for which a peer that is listed no more keeps its places.
KEEP: Final = 2.0

# Topics whose plans are kept.
_REMEMBERED: Final = 1_024


@final
class Peer:
    """A broker, this one or another.

    Args:
        member: Its id.
    """

    __slots__ = ("data", "gone_until", "inbox", "member", "missing_since", "places")

    def __init__(self, member: str) -> None:
        self.member: Final = member
        self.inbox: Final[str] = inbox_of(member)
        self.data: bytes = b""  # its listing, as it was read last
        self.places: dict[Listed, Subscription] = {}
        self.gone_until: float = 0.0
        self.missing_since: float | None = None

    def pass_over(self) -> None:
        """Send it nothing for a while: nobody reads its inbox."""
        self.gone_until = monotonic() + GONE


@final
@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A subscription of a broker.

    Attributes:
        peer: The broker.
        number: The subscription's number there.
        group: Its group.
        rank: How much its pattern leaves open; a lower one is more specific.
        answers: Whether it gets what is sent and requested, beside what is published.
    """

    peer: Peer
    number: int
    group: str | None
    rank: tuple[int, ...]
    answers: bool


@final
class Group:
    """Places of which one gets each message, in turn.

    Args:
        name: The group's name; None for those without a group that answer requests in turn.
        places: At least one.
    """

    __slots__ = ("_turn", "name", "places")

    def __init__(self, name: str | None, places: Iterable[Place]) -> None:
        self.name: Final = name
        self.places: Final[tuple[Place, ...]] = tuple(places)
        self._turn = rng().randrange(len(self.places))  # or all senders would begin with the same

    def pick(self, tried: Container[Place] = ()) -> Place | None:
        """Return the next place that can be reached and was not ``tried``, or None."""
        places = self.places
        for _ in places:
            self._turn = turn = (self._turn + 1) % len(places)
            place = places[turn]
            gone_until = place.peer.gone_until
            if (not gone_until or gone_until <= monotonic()) and place not in tried:
                return place
        return None


@final
class Plan:
    """Who gets the messages of one topic.

    Args:
        places: All that want it.

    Attributes:
        groups: Each gets one copy of what is published, by name in order.
        each: Places that get a copy each.
        handling: Groups that get what is sent, by name in order.
        callees: Who may answer a request, the first first.
    """

    __slots__ = ("callees", "each", "groups", "handling")

    def __init__(self, places: Iterable[Place]) -> None:
        wanting = [*places]
        answering = [place for place in wanting if place.answers]
        self.each: Final[tuple[Place, ...]] = tuple(p for p in wanting if p.group is None)
        self.groups: Final[tuple[Group, ...]] = _groups(wanting)
        self.handling: Final[tuple[Group, ...]] = _groups(answering)
        ranked: dict[tuple[int, ...], list[Place]] = {}
        for place in (place for place in answering if place.group is None):
            ranked.setdefault(place.rank, []).append(place)
        callees = [(min(p.rank for p in g.places), 0, g.name or "", g) for g in self.handling]
        callees += [(rank, 1, "", Group(None, own)) for rank, own in ranked.items()]
        self.callees: Final[tuple[Group, ...]] = tuple(
            each[-1] for each in sorted(callees, key=lambda c: c[:-1])
        )

    def callee(self, tried: Container[Place] = ()) -> Place | None:
        """Return who answers the next request, or None if nobody is left to be asked."""
        for group in self.callees:
            place = group.pick(tried)
            if place is not None:
                return place
        return None


@final
class Routes:
    """What one broker knows of all.

    Args:
        member: Its own id.
    """

    __slots__ = ("_peers", "_plans", "_trie", "here")

    def __init__(self, member: str) -> None:
        self.here: Final[Peer] = Peer(member)
        self._peers: dict[str, Peer] = {}
        self._plans: dict[str, Plan] = {}
        self._trie = TopicTrie[Place]()

    def __len__(self) -> int:
        """Return how many other brokers are known."""
        return len(self._peers)

    @property
    def missing(self) -> bool:
        """Whether a peer is listed no more and not buried yet."""
        return any(peer.missing_since is not None for peer in self._peers.values())

    def plan(self, topic: str) -> Plan:
        """Return who gets the messages of ``topic``.

        Raises:
            ValueError: ``topic`` is no topic.
            TypeError: ``topic`` is no text.

        Complexity: O(1) for one of the last 1,024 topics, else O(tokens + places).
        """
        plan = self._plans.get(topic)
        if plan is None:
            plan = Plan(self._trie.match(topic))
            if len(self._plans) >= _REMEMBERED:
                self._plans.clear()
            self._plans[topic] = plan
        return plan

    def list_here(self, listed: Listed) -> None:
        """Let this broker itself have the messages of one more subscription.

        Raises:
            ValueError: Its pattern is none.
        """
        self._add(self.here, listed)
        self._plans.clear()

    def unlist_here(self, listed: Listed) -> None:
        """Take that back."""
        self.here.places.pop(listed).close()
        self._plans.clear()

    def hope(self) -> None:
        """Pass nobody over any more."""
        for peer in self._peers.values():
            peer.gone_until = 0.0

    def heed(self, members: Mapping[str, bytes]) -> None:
        """Take the members of the directory."""
        for member, data in members.items():
            if member != self.here.member and is_member(member):
                self._heed_one(member, data)
        now = monotonic()
        for member, peer in self._peers.items():
            if member not in members and peer.missing_since is None:
                peer.missing_since = now

    def bury(self) -> list[Peer]:
        """Forget the peers that have been missing for :data:`KEEP` seconds, and return them."""
        latest = monotonic() - KEEP
        dead = [
            peer
            for peer in self._peers.values()
            if peer.missing_since is not None and peer.missing_since <= latest
        ]
        for peer in dead:
            del self._peers[peer.member]
            self._place(peer, ())
        return dead

    def _heed_one(self, member: str, data: bytes) -> None:
        peer = self._peers.get(member)
        if peer is None:
            peer = self._peers[member] = Peer(member)
        peer.missing_since = None
        if peer.data != data:
            peer.data = data
            peer.gone_until = 0.0
            self._place(peer, read_listing(data).subscriptions)

    def _place(self, peer: Peer, subscriptions: Iterable[Listed]) -> None:
        """Give ``peer`` these places; those that it has had already stay as they are."""
        wanted = dict.fromkeys(subscriptions)
        for listed in peer.places.keys() - wanted.keys():
            peer.places.pop(listed).close()
        for listed in wanted:
            if listed not in peer.places:
                # What a newer release lists may be no pattern to this one.
                with suppress(ValueError):
                    self._add(peer, listed)
        self._plans.clear()

    def _add(self, peer: Peer, listed: Listed) -> None:
        rank = _rank(listed.pattern)
        place = Place(peer, listed.number, listed.group, rank, listed.answers)
        peer.places[listed] = self._trie.add(listed.pattern, place)


def _groups(places: Iterable[Place]) -> tuple[Group, ...]:
    """Return the groups of ``places``, by name in order."""
    grouped: dict[str, list[Place]] = {}
    for place in places:
        if place.group is not None:
            grouped.setdefault(place.group, []).append(place)
    return tuple(Group(name, grouped[name]) for name in sorted(grouped))


def _rank(pattern: str) -> tuple[int, ...]:
    return tuple((token == ANY) + 2 * (token == REST) for token in pattern.split("."))
