"""A cluster: 16,384 slots on several servers, and a map of them that may be stale at any time.

::

    key --crc16 of its {tag}--> slot --map--> node --> the node's pipeline
                                  ^
       MOVED 866 host:port -------'  one slot is put right at once, the map is read anew
       ASK 866 host:port             this command alone goes there, behind an ASKING

The map is read when the backend is opened and again, by one task at a time and at most ten times
a second, after every sign that it is stale: a MOVED, a lost or refused connection, CLUSTERDOWN.
Commands without a key (``TIME``) go to any node. A cluster carries messages to all nodes, but those
of two nodes overtake each other: so each client publishes through one node, whoever has a slot that
it has chosen by chance.

Not guaranteed: a command whose keys live in different slots. Nothing of this library sends one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast, final

from redis.crc import key_slot

from aiopatterns.backends.redis.errors import FAILURES, RefusalError, UnsentError
from aiopatterns.backends.redis.keys import key_of
from aiopatterns.backends.redis.pipeline import Pipeline
from aiopatterns.backends.url import Address
from aiopatterns.core.clock import monotonic, rng

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.backends.redis.connection import Command, Reply, Waiting
    from aiopatterns.backends.redis.errors import Failure
    from aiopatterns.backends.redis.statistics import Tally
    from aiopatterns.backends.url import Target

__all__ = ["ClusterRoute"]

_SLOTS: Final = 16_384
# Seconds between two readings of the map.
_FRESH: Final = 0.1


@final
class ClusterRoute:
    """Commands go to the node that has their key.

    Args:
        target: User, password and TLS; its addresses are the nodes to begin with.
        patience: See :class:`Pipeline`.
        tally: Where to count.
    """

    __slots__ = ("_nodes", "_patience", "_pipelines", "_read_at", "_reading", "_slots", "_speaker",
                 "_tally", "_target")  # fmt: skip

    def __init__(self, target: Target, *, patience: float, tally: Tally) -> None:
        self._target = target
        self._patience = patience
        self._tally = tally
        self._slots: dict[int, Address] = {}
        self._speaker = rng().randrange(_SLOTS)  # the slot whose node takes what is published
        self._nodes: list[Address] = list(target.addresses)
        self._pipelines: dict[Address, Pipeline] = {}
        self._reading: asyncio.Task[None] | None = None
        self._read_at = 0.0

    @property
    def in_flight(self) -> int:
        """How many commands wait for their replies."""
        return sum(each.in_flight for each in self._pipelines.values())

    @property
    def servers(self) -> tuple[Address | None, ...]:
        """The masters, as the map has them."""
        return tuple(self._nodes)

    def send_to(self, server: Address | None, command: Command) -> Waiting:
        """Issue a command to one master."""
        return self._pipeline(cast("Address", server)).send(command)

    async def open(self) -> Failure | None:
        """Read the map from the first node that tells it."""
        return await self._read_map()

    def send(self, command: Command) -> Waiting:
        """Issue a command to the node of its key."""
        return self._pipeline(self.home(command) or rng().choice(self._nodes)).send(command)

    def get(self, key: str) -> Waiting:
        """Issue the read of one key; keys of different slots cannot be asked for by one MGET."""
        return self.send(("GET", key))

    def resend(self, command: Command, failure: Failure) -> Waiting:
        """Issue a command again: where the refusal says, or where the key is by now."""
        address = self.redirected(failure)
        if address is None:
            self._refresh()
            return self.send(command)
        pipeline = self._pipeline(address)
        if cast("RefusalError", failure).code == "ASK":
            pipeline.send(("ASKING",))  # holds for the next command, which goes in the same write
        return pipeline.send(command)

    def home(self, command: Command) -> Address | None:
        """Return the node that ``command`` has to go to; None if any will do."""
        key = key_of(command)
        if key is None and command[0] != "PUBLISH":
            return None
        slot = self._speaker if key is None else key_slot(key)
        found = self._slots.get(slot)
        if found is None:
            self._refresh()
            found = self._nodes[slot % len(self._nodes)]  # it will say MOVED, or CLUSTERDOWN
        return found

    def redirected(self, failure: Failure) -> Address | None:
        """Return the node that MOVED or ASK names; MOVED also puts the map right."""
        if not isinstance(failure, RefusalError) or failure.code not in {"MOVED", "ASK"}:
            return None
        code, slot, place = str(failure).split(" ")[:3]
        host, _, port = place.rpartition(":")
        address = Address(host or self._nodes[0].host, int(port))
        if code == "MOVED":
            self._slots[int(slot)] = address
            self._refresh()
        return address

    async def locate(self, home: Address | None) -> Address:
        """Return ``home``, or any node."""
        return home or rng().choice(self._nodes)

    def drop(self, why: str) -> list[asyncio.Future[None]]:
        """Hang up everywhere."""
        ends: list[asyncio.Future[None]] = []
        if self._reading is not None:
            self._reading.cancel()
            ends.append(self._reading)
        for pipeline in self._pipelines.values():
            ends += pipeline.drop(why)
        return ends

    def _pipeline(self, address: Address) -> Pipeline:
        found = self._pipelines.get(address)
        if found is None:

            async def locate() -> Address:
                return address

            found = self._pipelines[address] = Pipeline(
                self._target, locate, patience=self._patience, tally=self._tally
            )
        return found

    def _refresh(self) -> None:
        """Have the map read, unless that is under way or was done just now."""
        if self._reading is not None and not self._reading.done():
            return
        if monotonic() - self._read_at >= _FRESH:
            self._reading = asyncio.get_running_loop().create_task(self._reread())

    async def _reread(self) -> None:
        """Read the map again; if nobody tells it, the old one stays."""
        await self._read_map()

    async def _read_map(self) -> Failure | None:
        """Ask one node after the other, those to begin with included."""
        known = list(dict.fromkeys((*self._nodes, *self._target.addresses)))
        rng().shuffle(known)
        failure: Failure = UnsentError("no node is known")
        for address in known:
            reply = await self._pipeline(address).send(("CLUSTER", "SLOTS"))
            if type(reply) in FAILURES:
                failure = reply
            elif reply:
                self._learn(reply, address)
                return None
            else:
                failure = UnsentError(f"{address} has no slots: it belongs to no cluster yet")
        return failure

    def _learn(self, ranges: Sequence[Reply], teller: Address) -> None:
        """Take over a map: ``[first, last, [host, port, ...] of the master, ... of replicas]``."""
        slots: dict[int, Address] = {}
        for first, last, master, *_ in ranges:
            # A node that knows no name of its own says "", which means: as you called me.
            address = Address(bytes(master[0] or b"").decode() or teller.host, int(master[1]))
            slots.update(dict.fromkeys(range(int(first), int(last) + 1), address))
        self._slots = slots
        self._nodes = list(dict.fromkeys(slots.values()))
        self._read_at = monotonic()
