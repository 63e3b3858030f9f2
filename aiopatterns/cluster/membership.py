"""The table of members, and who is right when two claims differ.

A plain state machine: claims go in, at an instant that the caller names; changed records and news
to pass on come out. It sends nothing and waits for nothing.

A claim names an incarnation, the member's own version of itself. A higher incarnation is newer
than a lower one. At the same incarnation the worse claim wins::

    alive < suspect < dead < left

and only the member itself can raise its incarnation, which it does to contradict. So all who have
heard the same claims, in whatever order and however often, hold the same table.

Guarantees:

* The incarnation of a record never goes down.
* A claim about this node that is not so is contradicted at once, unless the node is leaving.
* Claims cost memory for :data:`~aiopatterns.cluster.messages.MAX_MEMBERS` members at most, and an incarnation that no clock can
  have given is not believed: it could not be topped any more.

Source: Das, Gupta and Motivala, "SWIM", DSN 2002, section 4.2. Incarnations begin with the wall
time, so that a node which starts again is newer than what is said of its former process
(memberlist's issue 311); the bound is that of its pull request 359.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from msgspec.structs import replace

from aiopatterns.cluster.gossip import GossipQueue
from aiopatterns.cluster.member import Member, MemberState
from aiopatterns.cluster.messages import MAX_MEMBERS, Update, piece
from aiopatterns.cluster.ring import Ring
from aiopatterns.cluster.suspicion import CONFIRMATIONS, Suspicion
from aiopatterns.core.clock import wall

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.cluster.swim import Swim

__all__ = ["FORGET", "MAX_AHEAD", "Membership", "incarnation_now"]

MAX_AHEAD: Final = 86_400_000
"""How far an incarnation may be ahead of this node's clock: a day, in milliseconds."""

FORGET: Final = 3_600.0
"""Seconds that a member is remembered after it died or left."""

STATES: Final = tuple(MemberState)
RANKS: Final = MappingProxyType({state: rank for rank, state in enumerate(STATES)})
ALIVE, SUSPECT, DEAD, LEFT = range(4)
#: Probe periods that a suspect has to answer when it is asked a last time.
_LAST_CALL: Final = 2.0


def incarnation_now() -> int:
    """Return the incarnation of a process that starts now: the wall time in milliseconds."""
    return int(wall() * 1_000)


@final
class Membership:
    """What one node knows of all.

    Args:
        name: The node's own name.
        address: Where it is reached.
        swim: The settings.
        now: Monotonic seconds.
        changed: Called with the record before (None for a new member) and after each change of
            state.
    """

    __slots__ = (
        "_changed",
        "_suspicions",
        "_swim",
        "leaving",
        "living",
        "me",
        "members",
        "news",
        "refuted",
        "ring",
        "superseded",
        "unbelieved",
    )

    def __init__(
        self,
        name: str,
        address: str,
        swim: Swim,
        *,
        now: float,
        changed: Callable[[Member | None, Member], object],
    ) -> None:
        self._swim = swim
        self._changed = changed
        self._suspicions: dict[str, Suspicion] = {}
        self.me: Member = Member(name, address, MemberState.ALIVE, incarnation_now(), now)
        self.members: dict[str, Member] = {name: self.me}
        self.ring: Ring = Ring(name)  # the others that are alive or suspect
        self.living: int = 1  # alive or suspect, with this node
        self.news: GossipQueue[str] = GossipQueue()
        self.leaving: bool = False
        #: Where the process is that has taken this node's name, if one has.
        self.superseded: str | None = None
        self.refuted: int = 0  # claims about this node that it has contradicted
        self.unbelieved: int = 0  # claims that could not be true
        self._tell(self.me)

    def claims(self) -> list[Update]:
        """Return the whole table as claims, this node first."""
        me = self.me
        others = [self._claim(each) for each in self.members.values() if each is not me]
        return [self._claim(me), *others]

    def merge(self, claims: list[Update], teller: str, now: float) -> None:
        """Take in a whole table, whose news may be old: who is dead there may contradict here."""
        for claim in claims:
            if claim.state != DEAD:
                self.heed(claim, now)
            elif claim.name in self.members:
                self.heed(replace(claim, state=SUSPECT, accuser=teller), now)

    def heed(self, claim: Update, now: float) -> None:
        """Take in what somebody says."""
        known = self.members.get(claim.name)
        if known is not None and claim.incarnation <= known.incarnation:
            if claim.incarnation == known.incarnation:  # most of what is heard has been heard
                self._weigh(known, claim, now)
        elif claim.incarnation > incarnation_now() + MAX_AHEAD:
            self.unbelieved += 1
        elif known is None:
            self._meet(claim, now)
        elif known is self.me:
            self._heed_own(claim, now)
        else:
            self._accept(known, claim, now)

    def accuse(self, name: str, now: float) -> None:
        """Say that a member did not answer this node."""
        known = self.members.get(name)
        if known is not None and known.living:
            claim = Update(name, known.address, known.incarnation, SUSPECT, self.me.name)
            self.heed(claim, now)

    def bury(self, name: str, now: float) -> None:
        """Declare a member dead."""
        known = self.members[name]
        claim = Update(name, known.address, known.incarnation, DEAD, self.me.name)
        self._accept(known, claim, now)

    def last_calls(self, now: float) -> list[Member]:
        """Return the suspects that have to be asked a last time now."""
        lead = _LAST_CALL * self._swim.probe
        return [
            self.members[name]
            for name, suspicion in self._suspicions.items()
            if suspicion.last_call(now, lead)
        ]

    def expire(self, now: float) -> None:
        """Declare dead who had time enough to contradict."""
        for name in [n for n, each in self._suspicions.items() if each.deadline <= now]:
            self.bury(name, now)

    def forget(self, now: float) -> None:
        """Drop the records of those that died or left long ago."""
        members = self.members.values()
        for each in [m for m in members if not m.living and m.since < now - FORGET]:
            del self.members[each.name]

    def extend(self, seconds: float) -> None:
        """Give every suspect more time: this node could not listen for so long."""
        for each in self._suspicions.values():
            each.extend(seconds)

    def leave(self, now: float) -> None:
        """Say goodbye; from here on this node contradicts nothing."""
        self.leaving = True
        self._become(self.me.incarnation, MemberState.LEFT, now)

    def about(self, name: str) -> bytes | None:
        """Return what has to be told to a member of itself: that it is not believed alive."""
        known = self.members.get(name)
        if known is None or known.state is MemberState.ALIVE:
            return None
        return piece(self._claim(known))

    def _heed_own(self, claim: Update, now: float) -> None:
        """Contradict what is not so; a process that has this name elsewhere and is newer wins."""
        if self.leaving:
            return
        if claim.state == ALIVE and claim.address != self.me.address:
            self.superseded = claim.address
            return
        self.refuted += 1
        self._become(claim.incarnation + 1, MemberState.ALIVE, now)

    def _become(self, incarnation: int, state: MemberState, now: float) -> None:
        before, self.me = self.me, Member(self.me.name, self.me.address, state, incarnation, now)
        self.members[self.me.name] = self.me
        self._tell(self.me)
        if state is not before.state:
            self._changed(before, self.me)

    def _meet(self, claim: Update, now: float) -> None:
        """Take in a new member; who is said to be gone already is not met."""
        if claim.state > SUSPECT:
            return
        if len(self.members) >= MAX_MEMBERS:
            self.unbelieved += 1
            return
        self._accept(None, claim, now)

    def _weigh(self, known: Member, claim: Update, now: float) -> None:
        """Choose between two claims of one incarnation: the worse one is true."""
        rank = RANKS[known.state]
        if known is self.me:
            if claim.state > rank:
                self._heed_own(claim, now)
        elif claim.state > rank:
            self._accept(known, claim, now)
        elif claim.state == rank == SUSPECT and self._suspicions[known.name].confirm(claim.accuser):
            self.news.put(claim.name, piece(claim))

    def _accept(self, known: Member | None, claim: Update, now: float) -> None:
        state = STATES[claim.state]
        since = known.since if known is not None and known.state is state else now
        member = Member(claim.name, claim.address, state, claim.incarnation, since)
        self.members[claim.name] = member
        self._suspicions.pop(claim.name, None)
        self._count(known, member)
        if claim.state == SUSPECT:
            self._suspect(claim, now)
        self.news.put(claim.name, piece(claim))
        if known is None or known.state is not state:
            self._changed(known, member)

    def _count(self, known: Member | None, member: Member) -> None:
        """Keep the ring and the number of the living."""
        lived = known is not None and known.living
        if member.living and not lived:
            self.living += 1
            self.ring.add(member.name)
        elif lived and not member.living:
            self.living -= 1
            self.ring.remove(member.name)

    def _suspect(self, claim: Update, now: float) -> None:
        low, high = self._swim.patience(self.living)
        needed = max(min(CONFIRMATIONS, self.living - 2), 0)
        self._suspicions[claim.name] = Suspicion(
            claim.accuser, now, low=low, high=high, needed=needed
        )
        if claim.accuser != self.me.name:
            self.ring.alarm(claim.name)

    def _tell(self, member: Member) -> None:
        self.news.put(member.name, piece(self._claim(member)))

    def _claim(self, member: Member) -> Update:
        suspicion = self._suspicions.get(member.name)
        accuser = "" if suspicion is None else suspicion.accuser
        return Update(member.name, member.address, member.incarnation, RANKS[member.state], accuser)
