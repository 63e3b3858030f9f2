"""A hundred peers on a bad network, of whom one dies: who is declared dead, and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from aiopatterns.cluster import Member, MemberState, MemoryNetwork, PeerNode
from aiopatterns.core.clock import monotonic, rng, sleep
from tests.cluster.crowd import Crowd

if TYPE_CHECKING:
    from collections.abc import Callable

LOSS = 0.1
PAUSE = 0.5
#: Seconds from one pause to the next, of some node: with a hundred, five are in one at any time.
BETWEEN = 0.1
DELAY = 0.002


@dataclass
class Storm:
    """What has happened."""

    victim: str = ""
    false: list[tuple[str, str]] = field(default_factory=list)  # who said that who was dead
    seen: dict[str, float] = field(default_factory=dict)  # who saw the death when, from it on
    died: float = 0.0
    failed_probes: int = 0

    def watcher(self, node: str) -> Callable[[Member], None]:
        """What one node's changes mean."""

        def changed(member: Member) -> None:
            if member.state is not MemberState.DEAD or node == self.victim:
                return
            if member.name == self.victim:
                self.seen.setdefault(node, monotonic() - self.died)
            else:
                self.false.append((node, member.name))

        return changed


async def storm(nodes: int, *, quiet: float, crash: bool) -> Storm:
    """Let so many nodes live through a storm, and then one of them die.

    Args:
        nodes: How many.
        quiet: Seconds in which nobody dies.
        crash: Whether the process dies and its address refuses, or the whole machine is gone.
    """
    found = Storm()
    network = MemoryNetwork(seed=rng().getrandbits(32), loss=LOSS, delay=DELAY)
    async with anyio.create_task_group() as tasks:
        peers = Crowd(network, tasks)
        for number in range(nodes):
            node: PeerNode = await peers.open(f"n{number}", seeds=["n0"])
            node.on_change(found.watcher(node.name))
        tasks.start_soon(_pauses, network, list(peers.nodes))
        await sleep(quiet)
        known = set.intersection(*(set(node.members) for node in peers.nodes.values()))
        found.failed_probes = sum(n.statistics().failed_probes for n in peers.nodes.values())
        found.victim = rng().choice(sorted(known))
        found.died = monotonic()
        if crash:
            await peers.crash(found.victim)
        else:
            network.isolate(found.victim)
        with anyio.move_on_after(10):
            while len(found.seen) < nodes - 1:
                await sleep(0.05)
        tasks.cancel_scope.cancel()
    return found


async def _pauses(network: MemoryNetwork, names: list[str]) -> None:
    while True:
        await sleep(BETWEEN)
        network.pause(rng().choice(names), PAUSE)
