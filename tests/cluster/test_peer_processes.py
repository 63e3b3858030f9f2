"""Five processes over TCP: one is killed, one is cut off, one is stopped, and all find together.

The processes reach each other through a switch in this one, which can cut the wire between any two
of them: it reads in the beginning of each connection who calls.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import Event, connect_tcp, create_task_group, create_tcp_listener
from anyio.streams.buffered import BufferedByteReceiveStream

from aiopatterns.cluster.tcpframes import (
    CHALLENGE_BYTES,
    HEAD_BYTES,
    read_hello,
    rest_of_hello,
)
from aiopatterns.cluster.tcpwire import LOST
from tests.cluster.wires import exactly

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["a", "b", "c", "d", "e"]
WITHIN = 25.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Switch:
    """Wires between named nodes, which can be cut between one of them and the others."""

    def __init__(self):
        self.ports: dict[str, int] = {}  # where each node listens
        self.addresses: dict[str, str] = {}  # where the others call it: here
        self.island: set[str] = set()
        self.healed = Event()

    def isolate(self, *names):
        self.island, self.healed = set(names), Event()

    def heal(self):
        self.island.clear()
        self.healed.set()

    async def passable(self, one, other):
        while (one in self.island) != (other in self.island):
            await self.healed.wait()

    async def add(self, name, tasks):
        """Listen for a node, before it does."""
        self.ports[name], port = free_port(), free_port()
        self.addresses[name] = f"127.0.0.1:{port}"
        listener = await create_tcp_listener(local_host="127.0.0.1", local_port=port)

        async def serve():
            async with listener:
                await listener.serve(lambda stream: self._carry(name, stream))

        tasks.start_soon(serve)

    async def _carry(self, name, caller):
        with suppress(*LOST):
            async with caller, await connect_tcp("127.0.0.1", self.ports[name]) as called:
                await caller.send(await exactly(called, CHALLENGE_BYTES))
                head = await exactly(caller, HEAD_BYTES)
                rest = await exactly(caller, rest_of_hello(head))
                address, _ = read_hello(rest)
                source = next(n for n, each in self.addresses.items() if each == address)
                await self.passable(source, name)
                await called.send(head + rest)
                async with create_task_group() as tasks:
                    tasks.start_soon(self._pump, caller, called, (source, name), tasks)
                    tasks.start_soon(self._pump, called, caller, (source, name), tasks)

    async def _pump(self, back, forth, between, tasks):
        with suppress(*LOST):
            while True:
                chunk = await back.receive()
                await self.passable(*between)
                await forth.send(chunk)
        tasks.cancel_scope.cancel()


class Child:
    """A peer in a process of its own."""

    def __init__(self, name, process):
        self.name = name
        self.process = process
        self.lines = BufferedByteReceiveStream(process.stdout)

    async def says(self):
        with anyio.fail_after(WITHIN):
            return json.loads(await self.lines.receive_until(b"\n", 1 << 20))

    async def do(self, what, **more):
        await self.process.stdin.send(json.dumps({"do": what, **more}).encode() + b"\n")
        return await self.says()

    async def leave(self):
        """Let it end by itself."""
        await self.process.stdin.aclose()
        with anyio.fail_after(WITHIN):
            assert await self.process.wait() == 0


class Network:
    """All the processes, and the switch between them."""

    def __init__(self, stack):
        self.stack = stack
        self.switch = Switch()
        self.children: dict[str, Child] = {}

    async def start(self, name):
        seeds = [self.switch.addresses[each] for each in NAMES[:2]]
        command = [sys.executable, "-m", "tests.cluster.peerchild", name]
        command += [str(self.switch.ports[name]), self.switch.addresses[name], *seeds]
        process = await anyio.open_process(command, cwd=ROOT, stderr=None)
        self.stack.push_async_callback(self._end, process)
        child = self.children[name] = Child(name, process)
        assert await child.says() == "open"

    async def _end(self, process):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
        await process.aclose()

    async def agree(self, names, **states):
        """Wait until all of ``names`` say that the others are alive, but for ``states``."""
        expected = {name: states.get(name, "alive") for name in NAMES}
        views: dict[str, Any] = {}
        with anyio.move_on_after(WITHIN) as late:
            while any(view != expected for view in views.values()) or not views:
                await anyio.sleep(0.05)
                views = {name: await self.children[name].do("members") for name in names}
        assert not late.cancelled_caught, (expected, views)

    async def hear(self, names, messages):
        """Wait until all of ``names`` have got all of these messages from others."""
        for name in names:
            expected = sorted([s, m] for s, m in messages if s != name)
            got: list[list[str]] = []
            with anyio.move_on_after(WITHIN):
                while sorted(got) != expected and len(got) <= len(expected):
                    await anyio.sleep(0.05)
                    got = await self.children[name].do("got")
            assert sorted(got) == expected, f"{name}: each message once"


@asynccontextmanager
async def network():
    async with create_task_group() as tasks, AsyncExitStack() as stack:
        found = Network(stack)
        for name in NAMES:
            await found.switch.add(name, tasks)
        async with create_task_group() as starts:
            for name in NAMES:
                starts.start_soon(found.start, name)
        yield found
        await stack.aclose()
        tasks.cancel_scope.cancel()


async def live_through_it():
    async with network() as net:
        await net.agree(NAMES)
        said = [["c", {"hello": "all"}]]
        await net.children["c"].do("broadcast", message={"hello": "all"})
        await net.hear(NAMES, said)

        # One is killed: the others agree that it is dead.
        net.children["e"].process.kill()
        living = NAMES[:4]
        await net.agree(living, e="dead")

        # One is cut off: it is dead for the others, and they for it. Both sides speak.
        net.switch.isolate("d")
        await net.agree(living[:3], d="dead", e="dead")
        await net.agree(["d"], a="dead", b="dead", c="dead", e="dead")
        said += [["a", "to the island"], ["d", "from the island"]]
        await net.children["a"].do("broadcast", message="to the island")
        await net.children["d"].do("broadcast", message="from the island")
        await net.hear(["b", "c"], said[:2])

        # It heals: all are alive, and what was said meanwhile has reached everybody, once.
        net.switch.heal()
        await net.agree(living, e="dead")
        await net.hear(living, said)

        # The killed one starts again under its name, and is told what is said from there on.
        await net.start("e")
        await net.agree(NAMES)
        await net.children["b"].do("send", to="e", message="welcome back")
        await net.hear(["e"], [["b", "welcome back"]])

        # One is stopped, as a host that hangs: dead, and alive by its own word when it goes on.
        net.children["c"].process.send_signal(signal.SIGSTOP)
        others = ["a", "b", "d", "e"]
        await net.agree(others, c="dead")
        net.children["c"].process.send_signal(signal.SIGCONT)
        await net.agree(NAMES)

        # One leaves: it has left, and is not dead.
        await net.children["b"].leave()
        await net.agree(["a", "c", "d", "e"], b="left")


@pytest.mark.real
@pytest.mark.timeout(180)
@pytest.mark.promise("cluster-peer-processes")
def test_five_processes_live_through_a_kill_a_partition_and_a_stop():
    anyio.run(live_through_it)
