"""One run of a peer: its table, its detector and its broadcasts, and what it does with what comes.

::

    packet   --> open, decode --> claims to the table, rumours to the inbox, head to the prober
    request  --> open, decode --> sync | check | share | letter --> answer
    pulse    --> probes, suspicions that are over, a round of gossip

All of it but asking others is synchronous, so a packet is heeded as a whole.
"""

from __future__ import annotations

from errno import EMSGSIZE
from typing import TYPE_CHECKING, Final, final

from anyio import Event

from aiopatterns.cluster.member import MemberState
from aiopatterns.cluster.membership import Membership
from aiopatterns.cluster.messages import (
    Accepted,
    Check,
    Letter,
    Refused,
    Request,
    Share,
    Sync,
    Synced,
    Update,
    answer_of,
    encode,
    packet_of,
    request_of,
)
from aiopatterns.cluster.peerevents import PeerChanged, PeerRejected, PeerStalled
from aiopatterns.cluster.post import Post
from aiopatterns.cluster.prober import Prober
from aiopatterns.cluster.rumours import Rumours
from aiopatterns.cluster.transport import MAX_EXCHANGE
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import CodecError, RejectedError
from aiopatterns.core.telemetry import emit, listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.cluster.inbox import Inbox
    from aiopatterns.cluster.member import Member
    from aiopatterns.cluster.messages import (
        Answer,
        Head,
        Packet,
        Rumour,
    )
    from aiopatterns.cluster.swim import Swim
    from aiopatterns.cluster.transport import Transport

__all__ = ["Session"]

#: Seconds that the whole of an exchange of state may take.
EXCHANGE: Final = 5.0
#: What the loop may be late, as a part of the timeout of a probe, before that counts as stuck.
_LATE: Final = 0.5


@final
class Session:
    """One run of one node.

    Args:
        name: The node.
        cluster: Its cluster.
        swim: The settings.
        transport: What carries; it serves already.
        inbox: Where messages go.
        check: Starts :meth:`check` for a name, an address and the number of a ping.
        changed: Called with each record that has changed state.
    """

    __slots__ = (
        "_changed",
        "_check",
        "_cluster",
        "_due",
        "_inbox",
        "_swim",
        "_transport",
        "bell",
        "deferred",
        "members",
        "post",
        "prober",
        "received",
        "rejected",
        "returned",
        "rumours",
        "stalls",
    )

    def __init__(
        self,
        name: str,
        cluster: str,
        swim: Swim,
        *,
        transport: Transport,
        inbox: Inbox,
        check: Callable[[str, str, int], object],
        changed: Callable[[Member], object],
    ) -> None:
        now = monotonic()
        self._cluster = cluster
        self._swim = swim
        self._transport = transport
        self._inbox = inbox
        self._check = check
        self._changed = changed
        self.members: Membership = Membership(
            name, transport.address, swim, now=now, changed=self._tell
        )
        self.rumours: Rumours = Rumours(name, self.members.me.incarnation)
        self.post: Post = Post(cluster, self.members, self.rumours, transport)
        self.prober: Prober = Prober(self.members, swim, self, now=now)
        #: Members that were dead and have spoken themselves, and what rings when one has.
        self.returned: dict[str, None] = {}
        self.bell: Event = Event()
        self._due = now  # of the next round of gossip
        self.received: int = 0  # packets and requests that were heeded
        self.rejected: int = 0  # that were malformed, or another cluster's
        self.deferred: int = 0  # broadcasts that found no room
        self.stalls: int = 0  # times that the loop was stuck

    @property
    def due(self) -> float:
        """When :meth:`pulse` has something to do."""
        return min(self._due, self.prober.due)

    def pulse(self, now: float) -> None:
        """Do what is due.

        Raises:
            RejectedError: Another process has taken this node's name.
        """
        late = now - self.due
        if late > _LATE * self._swim.timeout:
            self._stalled(late)
        self.prober.step(now)
        if now >= self._due:
            self._due = now + self._swim.gossip
            self.members.expire(now)
            for suspect in self.members.last_calls(now):
                self._check(suspect.name, suspect.address, 0)
            self.post.gossip(self._swim.fanout)
        if self.members.superseded is not None:
            me = self.members.me
            msg = (
                f"a newer process at {self.members.superseded!r} has taken the name {me.name!r} of"
                f" this node at {me.address!r}; give every node a name of its own"
            )
            raise RejectedError(msg, name=me.name)

    def receive(self, data: bytes) -> None:
        """Heed a packet; never raises."""
        try:
            packet = packet_of(data)
        except CodecError as error:
            self._reject(str(error))
            return
        if packet.cluster != self._cluster:
            self._reject(f"{packet.sender!r} is of cluster {packet.cluster!r}")
            return
        self.received += 1
        self._heed(packet)

    async def answer(self, data: bytes) -> bytes:
        """Answer a request.

        Raises:
            CodecError: It is none.
        """
        try:
            request = request_of(data)
        except CodecError as error:
            self._reject(str(error))
            raise
        if request.cluster != self._cluster:
            self._reject(f"{request.sender!r} is of cluster {request.cluster!r}")
            return encode(Refused("cluster", self._cluster))
        self.received += 1
        return encode(await self._answer(request))

    def tidy(self) -> None:
        """Forget who and what is long gone."""
        now = monotonic()
        self.members.forget(now)
        self.rumours.forget(now)

    async def sync(self, address: str, *, joining: bool) -> str:
        """Exchange the whole state with whoever is there.

        Args:
            address: Where.
            joining: Whether this node is new, and has missed no broadcast.

        Returns:
            Who is there; this node itself, if it is its own address.

        Raises:
            OSError: Nobody answered.
            CodecError: The answer was none.
            RejectedError: It belongs to another cluster, or has or knows this node's name.
        """
        body = Sync(self.members.claims(), self.rumours.digest(), joining)
        answer = await self._ask(address, body)
        if isinstance(answer, Refused):
            raise self._refusal(address, answer)
        if not isinstance(answer, Synced):
            return self.members.me.name
        name = answer.members[0].name
        self.members.merge(answer.members, name, monotonic())
        if joining:
            self.rumours.adopt(answer.have)
        else:
            self._hear(answer.rumours)
            if lacking := self.rumours.lacking(answer.have):
                await self._ask(address, Share(lacking))
        return name

    async def check(self, name: str, address: str, number: int) -> None:
        """Ask over the reliable road whether a member is there, for the ping of this number."""
        if await self._is_there(name, address):
            self.prober.answered(number)

    async def deliver(self, name: str, payload: bytes, timeout: float) -> Answer:
        """Take a message to a member's inbox; raises as the transport does."""
        member = self.members.members[name]
        return await self._ask(member.address, Letter(name, payload), timeout)

    def send(self, address: str, head: Head, *, about: str = "") -> None:
        """Send a packet; see :class:`~aiopatterns.cluster.prober.Outlet`."""
        self.post.send(address, head, about=about)

    def ask(self, name: str, address: str, number: int) -> None:
        """Ask over the reliable road; see :class:`~aiopatterns.cluster.prober.Outlet`."""
        self._check(name, address, number)

    def _heed(self, packet: Packet) -> None:
        now = monotonic()
        speaker = self.members.members.get(packet.sender)
        if speaker is None or speaker.incarnation < packet.incarnation:
            claim = Update(packet.sender, packet.address, packet.incarnation, 0)
            self.members.heed(claim, now)
        for claim in packet.updates:
            self.members.heed(claim, now)
        if packet.rumours:
            self._hear(packet.rumours)
        if packet.head is not None:
            self.prober.heed(packet.head, packet.sender, packet.address)
        was_dead = speaker is not None and not speaker.living
        if was_dead and self.members.members[packet.sender].living:
            self.returned[packet.sender] = None
            self.bell.set()

    def _hear(self, rumours: list[Rumour]) -> None:
        """Take in broadcasts; what finds no room is not known, so that it comes again."""
        now = monotonic()
        for rumour in rumours:
            if self.rumours.knows(rumour):
                continue
            if not self.rumours.crowded and self._inbox.offer(rumour.origin, rumour.payload):
                self.rumours.note(rumour, now)
            else:
                self.deferred += 1

    async def _answer(self, request: Request) -> Answer:
        body, me = request.body, self.members.me
        if isinstance(body, Sync):
            return await self._synced(request, body)
        if isinstance(body, Share):
            self._hear(body.rumours)
            return Accepted(me.incarnation)
        if body.target != me.name:
            return Refused("stranger", me.name)
        if isinstance(body, Check):
            if body.doubted:
                claim = Update(me.name, me.address, body.doubted, 1, request.sender)
                self.members.heed(claim, monotonic())
            return Accepted(self.members.me.incarnation)
        if self.members.leaving:
            return Refused("leaving")
        if self._inbox.offer(request.sender, body.payload):
            return Accepted(me.incarnation)
        return Refused("full")

    async def _synced(self, request: Request, body: Sync) -> Answer:
        me = self.members.me
        if request.sender == me.name:
            same = request.address == me.address
            return Accepted(me.incarnation) if same else Refused("taken", me.address)
        if (taken := await self._taken(request)) is not None:
            return Refused("taken", taken)
        self.members.merge(body.members, request.sender, monotonic())
        if request.sender not in self.members.members:
            return Refused("unbelieved")
        return Synced(self.members.claims(), self.rumours.digest(), self._for(body))

    def _for(self, body: Sync) -> list[Rumour]:
        """Return the broadcasts for somebody; who joins hears what is said from then on."""
        return [] if body.joining else self.rumours.lacking(body.have)

    async def _taken(self, request: Request) -> str | None:
        """Return the address of the living node whose name the asker has, if there is one."""
        known = self.members.members.get(request.sender)
        if known is None or not known.living or known.address == request.address:
            return None
        if await self._is_there(known.name, known.address):
            return known.address
        if self.members.members.get(known.name) is known:
            self.members.bury(known.name, monotonic())  # its successor is here
        return None

    async def _is_there(self, name: str, address: str) -> bool:
        """Ask; what is said of it is told, so that it can contradict by the answer."""
        known = self.members.members.get(name)
        doubted = known.incarnation if known and known.state is not MemberState.ALIVE else 0
        try:
            answer = await self._ask(address, Check(name, doubted), 2 * self._swim.probe)
        except (OSError, CodecError):
            return False
        if not isinstance(answer, Accepted):
            return False
        self.members.heed(Update(name, address, answer.incarnation, 0), monotonic())
        return True

    async def _ask(
        self, address: str, body: Sync | Check | Share | Letter, timeout: float = EXCHANGE
    ) -> Answer:
        me = self.members.me
        data = encode(Request(self._cluster, me.name, me.address, body))
        if len(data) > MAX_EXCHANGE:
            raise OSError(EMSGSIZE, f"{len(data)} bytes are too many for one exchange")
        return answer_of(await self._transport.exchange(address, data, timeout=timeout))

    def _refusal(self, address: str, answer: Refused) -> RejectedError:
        me = self.members.me
        if answer.why == "cluster":
            msg = (
                f"the peer at {address!r} is of cluster {answer.detail!r}, and this node of"
                f" {self._cluster!r}; name the same one in both"
            )
        elif answer.why == "unbelieved":
            msg = (
                f"the peer at {address!r} does not take node {me.name!r} in: it knows too many"
                f" already, or the clock here is more than a day ahead of its own"
            )
        else:
            msg = (
                f"the name {me.name!r} is that of a living node at {answer.detail!r};"
                f" give every node a name of its own"
            )
        return RejectedError(msg, name=me.name)

    def _stalled(self, seconds: float) -> None:
        self.stalls += 1
        self.members.extend(seconds)
        self.prober.stall(seconds)
        self._due += seconds
        if listening():
            emit(PeerStalled(self.members.me.name, seconds))

    def _reject(self, error: str) -> None:
        self.rejected += 1
        if self.rejected == 1 and listening():
            emit(PeerRejected(self.members.me.name, error))

    def _tell(self, before: Member | None, member: Member) -> None:
        self._changed(member)
        if listening():
            state = "" if before is None else before.state.value
            emit(
                PeerChanged(
                    self.members.me.name, member.name, member.state.value, state, member.address
                )
            )
