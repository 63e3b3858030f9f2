"""TCP without sockets: listeners and connections in memory, so that peers run on virtual time.

Chunks are cut by chance, as TCP may do it; connections break when the test says so.
"""

from __future__ import annotations

from typing import Any, ClassVar

from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, Event
from anyio.abc import SocketAttribute, SocketListener
from anyio.lowlevel import checkpoint

from aiopatterns.cluster import tcpboard, tcpwire
from aiopatterns.core.clock import rng


class NoSocket:
    """Takes options and does nothing with them."""

    def setsockopt(self, *option):
        del option


class End:
    """One end of a connection."""

    extra_attributes: ClassVar = {SocketAttribute.raw_socket: NoSocket}

    def __init__(self):
        self.other: End | None = None
        self.kept = bytearray()
        self.closed = self.broken = False
        self.bell = Event()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        await self.aclose()

    async def send(self, data):
        await checkpoint()
        assert self.other is not None
        if self.closed:
            raise ClosedResourceError
        if self.broken or self.other.closed:
            raise BrokenResourceError
        self.other.kept += data
        self.other.bell.set()

    async def receive(self, size=65_536):
        await checkpoint()
        assert self.other is not None
        while not self.kept:
            if self.closed:
                raise ClosedResourceError
            if self.broken:
                raise BrokenResourceError
            if self.other.closed:
                raise EndOfStream
            self.bell = Event()
            await self.bell.wait()
        cut = rng().randint(1, min(size, len(self.kept)))
        data = bytes(self.kept[:cut])
        del self.kept[:cut]
        return data

    async def aclose(self):
        self.closed = True
        self.bell.set()
        if self.other is not None:
            self.other.bell.set()
        await checkpoint()


class Listener(SocketListener):
    """Accepts connections of the net."""

    def __init__(self, net, port):
        self.net, self.port = net, port
        self.calls: list[End] = []
        self.bell = Event()

    @property
    def _raw_socket(self) -> Any:
        return NoSocket()

    async def accept(self) -> Any:
        await checkpoint()
        while not self.calls:
            self.bell = Event()
            await self.bell.wait()
        return self.calls.pop(0)

    async def aclose(self):
        self.net.listeners.pop(self.port, None)
        for call in self.calls:
            await call.aclose()
        await checkpoint()


class Listeners:
    """What anyio's ``create_tcp_listener`` gives."""

    def __init__(self, listener):
        self.listeners = [listener]
        self.extra_attributes = {SocketAttribute.local_port: lambda: listener.port}

    async def aclose(self):
        await self.listeners[0].aclose()


class Net:
    """All listeners and connections of one run."""

    def __init__(self):
        self.listeners: dict[int, Listener] = {}
        self.ends: list[End] = []

    async def listen(self, *, local_host, local_port):
        await checkpoint()
        port = local_port or 7000 + len(self.listeners)
        self.listeners[port] = Listener(self, port)
        return Listeners(self.listeners[port])

    async def connect(self, host, port):
        await checkpoint()
        if port not in self.listeners:
            raise ConnectionRefusedError(f"nobody listens at {host}:{port}")
        near, far = End(), End()
        near.other, far.other = far, near
        self.ends += [near, far]
        self.listeners[port].calls.append(far)
        self.listeners[port].bell.set()
        return near

    def break_one(self):
        """Break a connection by chance."""
        living = [end for end in self.ends if not (end.closed or end.broken)]
        if living:
            end = rng().choice(living)
            assert end.other is not None
            for each in (end, end.other):
                each.broken = True
                each.bell.set()


class Nets:
    """The net of the loop that runs; stands for the functions of anyio that make connections."""

    def __init__(self, monkeypatch):
        self.net = Net()
        monkeypatch.setattr(tcpwire, "connect_tcp", self.connect)
        monkeypatch.setattr(tcpboard, "create_tcp_listener", self.listen)

    def new(self) -> Net:
        """Begin anew: nothing may be shared between two loops."""
        self.net = Net()
        return self.net

    async def connect(self, host, port):
        return await self.net.connect(host, port)

    async def listen(self, **place):
        return await self.net.listen(**place)
