"""Several peers on one network in memory, and what each of them has heard."""

from __future__ import annotations

from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio import TASK_STATUS_IGNORED, CancelScope, Event, create_task_group

from aiopatterns.cluster import MemoryNetwork, MemoryTransport, PeerNode
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.lifecycle import OwnerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup


class Elsewhere:
    """A place in a network in memory whose address is not the name of its node."""

    public = False

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self._inner = MemoryTransport(network)
        self.address = address

    def check(self, address: str) -> None:
        self._inner.check(address)

    def serve(self, name: str, **options):
        del name
        return self._inner.serve(self.address, **options)

    def send(self, address: str, data: bytes) -> None:
        self._inner.send(address, data)

    async def exchange(self, address: str, data: bytes, *, timeout: float) -> bytes:
        return await self._inner.exchange(address, data, timeout=timeout)


class Crowd:
    """Nodes by name, the network they are on, and what each has heard, as (sender, message)."""

    def __init__(self, network: MemoryNetwork, tasks: TaskGroup) -> None:
        self.network = network
        self.nodes: dict[str, PeerNode] = {}
        self.heard: dict[str, list[tuple[str, object]]] = defaultdict(list)
        self._tasks = tasks
        self._scopes: dict[str, CancelScope] = {}
        self._leaving: dict[str, Event] = {}

    def make(self, name: str, **options) -> PeerNode:
        """Make a node that is seeded by the first, and write down what it hears."""
        transport = options.pop("transport", None) or MemoryTransport(self.network)
        node = PeerNode(name, transport=transport, **{"seeds": ["a"]} | options)
        node.on_message(lambda sender, message: self.heard[name].append((sender, message)))
        return node

    async def open(self, name: str, **options) -> PeerNode:
        """Open a node in a task of its own."""
        node = self.nodes[name] = self.make(name, **options)
        self._scopes[name], self._leaving[name] = CancelScope(), Event()
        await self._tasks.start(self._live, node)
        return node

    async def _live(self, node: PeerNode, *, task_status=TASK_STATUS_IGNORED) -> None:
        with self._scopes[node.name]:
            async with node:
                task_status.started()
                await self._leaving[node.name].wait()

    async def crash(self, name: str) -> None:
        """End a node without a goodbye."""
        self._scopes[name].cancel()
        await self._ended(name)

    async def leave(self, name: str) -> None:
        """End a node as it should be."""
        self._leaving[name].set()
        await self._ended(name)

    async def _ended(self, name: str) -> None:
        node = self.nodes.pop(name)
        while node.state is not OwnerState.STOPPED:
            await sleep(0.005)

    def states(self, name: str) -> set[str]:
        """How the nodes that are open see one; empty text for those that do not know it."""
        found = [node.members.get(name) for node in self.nodes.values()]
        return {"" if each is None else each.state.value for each in found}

    def agree(self, **states: str) -> bool:
        """Whether all see the named ones like that, and all others alive."""
        wanted = dict.fromkeys(self.nodes, "alive") | states
        return all(self.states(name) == {state} for name, state in wanted.items())


async def until(true: Callable[[], object], within: float = 60.0) -> float:
    """Wait until something is so, looking less often with time; returns how long it took."""
    began = monotonic()
    pause = 0.01
    while not true():
        assert monotonic() < began + within, "it has not come true in time"
        await sleep(pause)
        pause = min(1.5 * pause, 0.2)
    return monotonic() - began


@asynccontextmanager
async def crowd(names: str, *, network: MemoryNetwork | None = None, **options):
    """Open a node for each letter, and wait until all know all; they end by a crash."""
    async with create_task_group() as tasks:
        together = Crowd(network or MemoryNetwork(delay=0.001), tasks)
        for name in names:
            await together.open(name, **options)
        await until(together.agree)
        yield together
        tasks.cancel_scope.cancel()
