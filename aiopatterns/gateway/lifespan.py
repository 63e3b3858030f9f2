"""The lifespan protocol of ASGI: a server that starts opens an owner, one that ends closes it.

Guarantees: the server is told of an error in the phase in which it was raised, and the error goes
on. An owner that is open already is left as it is, for whoever has opened it closes it.

Source: the ASGI specification, version 3.0, lifespan protocol 2.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiopatterns.core.lifecycle import Owner
    from aiopatterns.gateway.request import Receive, Send

__all__ = ["live"]


async def live(owner: Owner, receive: Receive, send: Send) -> None:
    """Open and close ``owner`` when the server says so; raises what either raises."""
    await receive()
    if owner.is_open:
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    phase = "startup"
    try:
        async with owner:
            phase = "shutdown"
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except Exception as error:
        await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
        raise
    await send({"type": "lifespan.shutdown.complete"})
