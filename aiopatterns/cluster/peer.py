"""PeerNode: one of many equals, that know of each other and talk without a server between them.

::

            seeds                            probe, gossip            any of the others
    node ------------> join: whole state   <---------------->  who is alive, suspect, dead, left
                                            sync now and then
         broadcast(message) --- gossip ---> every living node, once
         send(peer, message) -------------> its inbox, and the answer that it is there

Membership is SWIM: every node probes one other at a time, so the load of a node does not grow with
the cluster. Who does not answer, by three roads, is suspect; who does not contradict in time is
dead. All news rides on the probes and on short rounds of gossip.

Guarantees:

* In a cluster of a hundred, a crash is known to all within 6 s with the default settings. With one
  packet in ten lost, and nodes that pause for half a second now and then, no living node is
  declared dead.
* A node that leaves its block normally is ``left`` for the others, at once and not after a timeout.
* After a partition, the two sides find together again, and broadcasts of the meantime are delivered;
  by the seeds, if they were apart for more than an hour.
* A broadcast is handled at most once by each process; by every living one, if at most
  :data:`~aiopatterns.cluster.rumours.KEEP` seconds pass and there is room in its inbox.
* A message that :meth:`PeerNode.send` has sent is in the inbox of the other when it returns.
* A process that starts anew under its name takes its place at once; two that live do not share one.
* Memory is bounded, whatever the others send. Malformed bytes are counted and do nothing.

Not guaranteed: that all nodes have the same view at one instant; order between messages; that a
node which was declared dead is so (it may be cut off). Who needs one decision asks a lease.

Source: Das, Gupta and Motivala, "SWIM", DSN 2002; Dadgar et al., "Lifeguard", DSN 2018; defaults
and push-pull from memberlist, which is what Consul and Nomad stand on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from anyio import TASK_STATUS_IGNORED, sleep_forever

from aiopatterns.cluster.inbox import Inbox
from aiopatterns.cluster.instance import service_name
from aiopatterns.cluster.joining import Joining
from aiopatterns.cluster.member import MemberState
from aiopatterns.cluster.messages import MAX_BROADCAST, MAX_MESSAGE, Refused
from aiopatterns.cluster.secret import Secret
from aiopatterns.cluster.session import Session
from aiopatterns.cluster.swim import Swim
from aiopatterns.core.clock import monotonic, sleep, sleep_until, yield_now
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import (
    ClosedError,
    NoEndpointError,
    QueueFullError,
)
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.telemetry import Subscription
from aiopatterns.core.validate import count, function, instance, plain_function, positive, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.cluster.inbox import Handler
    from aiopatterns.cluster.member import Member
    from aiopatterns.cluster.transport import Transport

__all__ = ["PeerNode", "PeerStatistics"]

_USUAL: Final = Swim()
#: Rounds of gossip that a goodbye is given.
_FAREWELL: Final = 3


@final
@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """What a peer has done since it was opened, and how it stands.

    Attributes:
        alive: Members that are alive, this node among them.
        suspect: Members that have not answered somebody and have not contradicted yet.
        dead: Members that died within the last hour.
        left: Members that said goodbye within the last hour.
        health: This node's own health, from 0 (well) to 7; it waits that much longer for others.
        probes: Probes that were begun.
        failed_probes: Probes that found nobody, by no road.
        refuted: Claims about this node that it has contradicted.
        stalls: Times that its event loop was stuck.
        sent: Packets sent.
        received: Packets and requests that were heeded.
        rejected: Those that were malformed or another cluster's, and claims that cannot be true.
        broadcasts: Broadcasts that are kept for those who missed them.
        deferred: Broadcasts that found no room in the inbox, or among those that still go round;
            they come again.
        queued: Messages in the inbox.
        handled: Messages that were handled.
        handler_errors: Handlers that raised.
    """

    alive: int = 0
    suspect: int = 0
    dead: int = 0
    left: int = 0
    health: int = 0
    probes: int = 0
    failed_probes: int = 0
    refuted: int = 0
    stalls: int = 0
    sent: int = 0
    received: int = 0
    rejected: int = 0
    broadcasts: int = 0
    deferred: int = 0
    queued: int = 0
    handled: int = 0
    handler_errors: int = 0


@final
class PeerNode(Owner):
    """A node in a network of equals; see the module's text for what it promises.

    Args:
        name: Its name: letters, digits and ``_.:@+-``, at most 255; one in the cluster.
        transport: What carries its messages.
        seeds: Addresses of some others that are likely to be there; one that answers will do. Its
            own may be among them, so that all nodes can have the same list.
        swim: How it looks after the others.
        secret: What all nodes of the cluster know and nobody else; needed to be reached by others
            than this machine.
        cluster: Name of the cluster; nodes of another one are not heeded.
        inbox: How many messages may wait for the handlers.

    Raises:
        ValueError: A value is out of its range; the transport is public and there is no secret.
        TypeError: A value is of another type.

    Entering waits for the first seed that answers, up to 5 s. Nobody there is no error: it goes on
    trying, and is a cluster of one meanwhile. It raises what is a mistake: ``OSError`` if the
    transport cannot listen, ``SecretMismatchError`` if no seed has the same secret, and
    ``RejectedError`` if they are of another cluster or a living node has this name. The block ends
    with a ``RejectedError`` if a newer process turns up that has got this name behind a partition.

    Example::

        node = PeerNode("a", transport=TCPTransport("127.0.0.1", 7946), seeds=["127.0.0.1:7947"])
        node.on_message(handle)
        async with node:
            await node.broadcast({"event": "started"})
    """

    __slots__ = (
        "_cluster",
        "_inbox",
        "_secret",
        "_seeds",
        "_session",
        "_swim",
        "_transport",
        "_watchers",
    )

    def __init__(
        self,
        name: str,
        *,
        transport: Transport,
        seeds: Iterable[str] = (),
        swim: Swim = _USUAL,
        secret: str | bytes | None = None,
        cluster: str = "default",
        inbox: int = 1_000,
    ) -> None:
        super().__init__(service_name("name", name))
        for verb in ("check", "serve", "send", "exchange"):
            function(f"transport.{verb}", getattr(transport, verb, None))
        self._transport = transport
        self._secret = Secret(secret)
        if transport.public and self._secret.known_to_all:
            msg = (
                "secret must be given for a transport that other machines can reach: without one"
                " anybody could speak for any node; or bind it to 127.0.0.1"
            )
            raise ValueError(msg)
        self._seeds = _seeds(seeds, transport)
        self._swim = instance("swim", swim, Swim, "a Swim")
        self._cluster = service_name("cluster", cluster)
        self._inbox = Inbox(name, count("inbox", inbox))
        self._watchers: dict[object, Callable[[Member], object]] = {}
        self._session: Session | None = None

    @property
    def members(self) -> Mapping[str, Member]:
        """All that this node knows of, by name, itself among them; a view that is always current.

        Raises:
            ClosedError: It is not open.
        """
        return MappingProxyType(self._run().members.members)

    @property
    def address(self) -> str:
        """Where others reach it.

        Raises:
            ClosedError: It is not open.
        """
        return self._run().members.me.address

    def on_message(self, handler: Handler) -> Subscription:
        """Call ``handler(sender, message)`` with each message, broadcast or sent to this node.

        Args:
            handler: A function, plain or async. Messages come one at a time, in the order of
                their arrival; while there is no handler, they go nowhere. So set it before
                entering.

        Returns:
            The subscription; close it to stop.
        """
        return self._inbox.subscribe(handler)

    def on_change(self, watcher: Callable[[Member], object]) -> Subscription:
        """Call ``watcher(member)`` whenever a member is met or stands otherwise than before.

        Args:
            watcher: A plain function that is quick; an error in it is an event.

        Returns:
            The subscription; close it to stop.
        """
        key = object()
        self._watchers[key] = plain_function("watcher", watcher)
        return Subscription(lambda: self._watchers.pop(key))

    async def broadcast(self, message: object) -> None:
        """Tell all others; gossip does the rest.

        It returns at once, unless there are others and so much is being told already that one
        more would push out what has not gone round yet; then it waits for room.

        Args:
            message: Anything that msgpack holds; 32 KiB at most.

        Raises:
            ValueError: It is too large.
            CodecError: It cannot be encoded.
            ClosedError: The node is not open.

        Cancellation: while it waits for room nothing is told; after that it is told nevertheless.

        Complexity: each node sends it about ``4 log10(n)`` times.
        """
        payload = _encoded(message, MAX_BROADCAST)
        while (session := self._run()).rumours.crowded and session.members.living > 1:
            await sleep(self._swim.gossip)
        session.rumours.mine(payload, monotonic())
        await yield_now()

    async def send(self, peer: str, message: object, *, timeout: float = 5.0) -> None:
        """Bring a message to one member; it is in its inbox when this returns.

        Args:
            peer: Name of the member.
            message: Anything that msgpack holds; 1 MiB at most.
            timeout: Seconds to wait for the answer.

        Raises:
            NoEndpointError: No such member, or it is dead, has left or is leaving.
            QueueFullError: Its inbox is full.
            TimeoutExceededError: No answer in time; it may have got it or not.
            OSError: It cannot be reached.
            ValueError: The message is too large.
            TypeError: ``peer`` is no text.
            CodecError: It cannot be encoded.
            ClosedError: The node is not open.

        Cancellation: the message may have got there or not.
        """
        session = self._run()
        payload = _encoded(message, MAX_MESSAGE)
        positive("timeout", timeout)
        member = session.members.members.get(text("peer", peer))
        if member is None or not member.living:
            is_ = "is not known" if member is None else f"is {member.state.value}"
            raise NoEndpointError(f"peer {peer!r} {is_} to {self.name!r}", name=peer)
        answer = await session.deliver(peer, payload, timeout)
        if not isinstance(answer, Refused):
            return
        if answer.why == "full":
            raise QueueFullError(f"the inbox of peer {peer!r} is full; send it later", name=peer)
        msg = f"at {member.address!r} is {answer.detail!r} and not peer {peer!r} any more"
        if answer.why == "leaving":
            msg = f"peer {peer!r} is leaving"
        raise NoEndpointError(msg, name=peer)

    def statistics(self) -> PeerStatistics:
        """Return this node's figures; those of its last run while it is closed."""
        session, inbox = self._session, self._inbox
        if session is None:
            return PeerStatistics()
        states = Counter(each.state for each in session.members.members.values())
        prober = session.prober
        return PeerStatistics(
            alive=states[MemberState.ALIVE],
            suspect=states[MemberState.SUSPECT],
            dead=states[MemberState.DEAD],
            left=states[MemberState.LEFT],
            health=prober.awareness.score,
            probes=prober.probes,
            failed_probes=prober.failed,
            refuted=session.members.refuted,
            stalls=session.stalls,
            sent=session.post.sent,
            received=session.received,
            rejected=session.rejected + session.members.unbelieved,
            broadcasts=len(session.rumours),
            deferred=session.deferred,
            queued=len(inbox),
            handled=inbox.handled,
            handler_errors=inbox.failed,
        )

    async def _start(self, tasks: TaskGroup) -> None:
        self._session = None
        session = await tasks.start(self._serve)
        joining = Joining(session, self._seeds, interval=self._swim.sync)
        tasks.start_soon(self._inbox.run)
        tasks.start_soon(self._pulse)
        await joining.first()
        tasks.start_soon(joining.run)

    async def _drain(self) -> None:
        session = self._run()
        self._inbox.closed = True
        session.members.leave(monotonic())
        if session.members.living > 1:
            for _ in range(_FAREWELL):
                session.post.gossip(self._swim.fanout)
                await sleep(self._swim.gossip)
        await self._inbox.drained()

    def _settle(self) -> None:
        self._inbox.clear()

    def _run(self) -> Session:
        self._open_group()
        if self._session is None:
            raise ClosedError(f"PeerNode {self.name!r} is being opened")
        return self._session

    async def _serve(self, *, task_status: TaskStatus[Session] = TASK_STATUS_IGNORED) -> None:
        """Be reachable; what arrives before the session is there is not heeded."""
        serving = self._transport.serve(
            self.name, receive=self._receive, answer=self._answer, secret=self._secret
        )
        async with serving:
            self._inbox.open()
            self._session = session = Session(
                self.name,
                self._cluster,
                self._swim,
                transport=self._transport,
                inbox=self._inbox,
                check=self._check,
                changed=self._changed,
            )
            task_status.started(session)
            await sleep_forever()

    def _receive(self, data: bytes) -> None:
        if self._session is not None:
            self._session.receive(data)

    async def _answer(self, data: bytes) -> bytes:
        return await self._run().answer(data)

    async def _pulse(self) -> None:
        session = self._run()
        while True:
            await sleep_until(session.due)
            session.pulse(monotonic())

    def _check(self, name: str, address: str, number: int) -> None:
        self._open_group().start_soon(self._run().check, name, address, number)

    def _changed(self, member: Member) -> None:
        for watcher in tuple(self._watchers.values()):
            try:
                watcher(member)
            except Exception as error:
                self._inbox.fail(member.name, error)


def _seeds(given: Iterable[str], transport: Transport) -> tuple[str, ...]:
    if isinstance(given, (str, bytes)):
        msg = f"seeds must be several addresses, such as [{given!r}], not {given!r}"
        raise TypeError(msg)
    if not isinstance(given, Iterable):
        msg = f"seeds must be several addresses, not {given!r}"
        raise TypeError(msg)
    seeds = tuple(text("seeds", seed) for seed in given)
    for seed in seeds:
        try:
            transport.check(seed)
        except ValueError as error:
            msg = f"seeds must be addresses of peers: {error}"
            raise ValueError(msg) from None
    return seeds


def _encoded(message: object, limit: int) -> bytes:
    payload = MSGPACK.encode(message)
    if len(payload) > limit:
        msg = f"message must have at most {limit} bytes in msgpack, not {len(payload)}"
        raise ValueError(msg)
    return payload
