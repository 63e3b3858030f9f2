"""Bare sockets on loopback for the tests of peers over TCP: both ends of one, and strangers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from anyio import (
    BrokenResourceError,
    EndOfStream,
    connect_tcp,
    create_task_group,
    create_tcp_listener,
    fail_after,
    sleep,
)
from anyio.abc import SocketAttribute, SocketListener, SocketStream
from anyio.streams.stapled import MultiListener

from aiopatterns.cluster.secret import PROOF_BYTES, Secret
from aiopatterns.cluster.tcpaddress import host_and_port
from aiopatterns.cluster.tcpframes import CHALLENGE_BYTES, NONCE_BYTES, Frame, Frames, opening
from aiopatterns.cluster.tcpwire import call, meet

SECRET = Secret("all peers of the test")
WITHIN = 10.0


def only(listeners: MultiListener[SocketStream]) -> SocketListener:
    """Return the one listener."""
    (listener,) = listeners.listeners
    assert isinstance(listener, SocketListener)
    return listener


@asynccontextmanager
async def ends():
    """Two ends of one connection: who called, and who was called."""
    async with await create_tcp_listener(local_host="127.0.0.1") as listeners:
        listener = only(listeners)
        caller = await connect_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port))
        async with caller, await listener.accept() as called:
            yield caller, called


@asynccontextmanager
async def listening_to(handle):
    """A listener that handles each connection by a function of the test; gives its address."""

    async def hosted(stream):
        async with stream:
            await handle(stream)

    async with await create_tcp_listener(local_host="127.0.0.1") as listeners:
        async with create_task_group() as tasks:
            tasks.start_soon(partial(listeners.serve, hosted))
            yield f"127.0.0.1:{listeners.extra(SocketAttribute.local_port)}"
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def wires(secret=SECRET):
    """Both wires of one connection after its beginning, and the two streams."""
    found: dict[str, Any] = {}

    async def hosted(stream):
        found["wire"], found["address"] = await meet(stream, secret)
        found["stream"] = stream
        await sleep(WITHIN)

    async with listening_to(hosted) as address:
        stream, wire = await call(*host_and_port("", address), secret=secret, address="me:1")
        async with stream:
            await until(lambda: "stream" in found)
            assert found["address"] == "me:1"
            yield wire, found["wire"], stream, found["stream"]


async def dialled(address: str):
    return await connect_tcp(*host_and_port("", address))


async def exactly(stream, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += await stream.receive(size - len(found))
    return found


async def introduced(stream, secret, address="stranger:1"):
    """Begin a connection by hand, as a peer does it; returns what seals and reads frames."""
    first = await exactly(stream, CHALLENGE_BYTES)
    hello = opening(bytes(NONCE_BYTES), address, sealed=True)
    await stream.send(hello + secret.proof("caller", first + hello))
    await exactly(stream, PROOF_BYTES)
    back = Frames(secret.seal("called", first + hello))
    return secret.seal("caller", first + hello), back


async def closed_by_other(stream) -> bytes:
    """Return what the other side still says before it hangs up."""
    said = b""
    with fail_after(WITHIN):
        while True:
            try:
                said += await stream.receive()
            except (EndOfStream, BrokenResourceError):
                return said


async def until(told, within: float = WITHIN) -> None:
    with fail_after(within):
        while not told():
            await sleep(0.005)


async def frames_from(stream, reader: Frames, count: int) -> list[Frame]:
    found: list[Frame] = []
    with fail_after(WITHIN):
        while len(found) < count:
            found += reader.feed(await stream.receive())
    return found
