"""Several peers on one network in memory, and what each of them has heard."""

from __future__ import annotations

from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from aiopatterns.cluster import MemberState, MemoryNetwork, MemoryTransport, PeerNode
from aiopatterns.core.clock import monotonic, sleep

if TYPE_CHECKING:
    from collections.abc import Callable


class Crowd:
    """Nodes by name, the network they are on, and what each has heard, as (sender, message)."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.nodes: dict[str, PeerNode] = {}
        self.heard: dict[str, list[tuple[str, object]]] = defaultdict(list)

    def make(self, name: str, **options) -> PeerNode:
        options.setdefault("seeds", ["a"])
        node = PeerNode(name, transport=MemoryTransport(self.network), **options)
        node.on_message(lambda sender, message: self.heard[name].append((sender, message)))
        self.nodes[name] = node
        return node

    def states(self, name: str) -> set[MemberState]:
        """How the nodes that are open see one of them."""
        return {
            node.members[name].state if name in node.members else MemberState.DEAD
            for node in self.nodes.values()
        }

    def agree(self, **states: str) -> bool:
        """Whether all nodes see the named ones like that, and have met all others alive."""
        wanted = {name: MemberState(states.get(name, "alive")) for name in self.nodes}
        return all(self.states(name) == {state} for name, state in wanted.items())


async def until(true: Callable[[], object], within: float = 30.0) -> float:
    """Wait until something is so; returns how long it took."""
    began = monotonic()
    while not true():
        assert monotonic() < began + within, "it has not come true in time"
        await sleep(0.02)
    return monotonic() - began


@asynccontextmanager
async def crowd(names: str, *, network: MemoryNetwork | None = None, **options):
    """Open a node for each letter, all seeded by the first, and wait until all know all."""
    async with AsyncExitStack() as stack:
        together = Crowd(network or MemoryNetwork(delay=0.001))
        for name in names:
            await stack.enter_async_context(together.make(name, **options))
        await until(together.agree)
        yield together
