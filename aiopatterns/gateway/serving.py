"""Serving: a gateway behind uvicorn, with the door in front, until somebody says that it is over.

::

    serve ---> uvicorn, one worker ---> Door ---> Gateway
      |
      '-- SIGTERM, Ctrl-C: no new connection; what was accepted is answered, within the grace
          a second one: at once

Guarantees: signals end it, and are no error. After the grace what is still under way is cancelled.

Not guaranteed: several processes on one port; start several programs, or one for each container.
"""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Final, final

from anyio import TASK_STATUS_IGNORED, CancelScope, create_task_group, open_signal_receiver

from aiopatterns.core.clock import sleep
from aiopatterns.core.validate import non_negative, positive
from aiopatterns.gateway.aioclient import require

if TYPE_CHECKING:
    from collections.abc import Generator

    from anyio.abc import TaskStatus
    from uvicorn import Config, Server

    from aiopatterns.gateway.app import Gateway

__all__ = ["run_until_signal", "serve"]

# Seconds that an idle connection of a client is kept, as other proxies do.
_KEEP_ALIVE: Final = 60
# Seconds between two looks at whether the server has begun.
_LOOK: Final = 0.01


async def serve(
    gateway: Gateway,
    listener: socket.socket,
    *,
    grace: float = 20.0,
    patience: float = 10.0,
    task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
) -> None:
    """Serve a gateway until SIGTERM or Ctrl-C.

    Args:
        gateway: It is open already.
        listener: A socket that is bound; it is closed at the end.
        grace: Seconds for what is under way at the signal, rounded up to whole ones.
        patience: Seconds for the head of a request.
        task_status: Told when requests are taken.

    Raises:
        ImportError: uvicorn is not installed; the message has the command.
        ValueError: A value is out of its range.

    Cancellation: the server ends at once, and with it what is under way.

    Example::

        with socket.create_server(("0.0.0.0", 8000)) as listener:
            async with gateway:
                await serve(gateway, listener)
    """
    non_negative("grace", grace)
    positive("patience", patience)
    require("uvicorn", "httptools")
    if listener.family != socket.AF_UNIX:  # asyncio does so on sockets that it has made itself
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await run_until_signal(_config(gateway, grace, patience), listener, task_status=task_status)


async def run_until_signal(
    config: Config,
    listener: socket.socket,
    *,
    task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
) -> None:
    """Serve an application until SIGTERM or Ctrl-C, and end it, whatever is still under way.

    Args:
        config: What to serve, and how long to wait for what is under way at the signal.
        listener: A socket that is bound; it is closed at the end.
        task_status: Told when requests are taken.

    Cancellation: the server ends at once.
    """
    server = _quiet(config)
    async with create_task_group() as tasks:
        await tasks.start(_heed, server)
        tasks.start_soon(_tell, server, task_status)
        try:
            await server.serve(sockets=[listener])
        finally:
            with CancelScope(shield=True):
                await _cut_off(server)
        tasks.cancel_scope.cancel()


def _quiet(config: Config) -> Server:
    """Return a server that leaves signals to its program."""
    import uvicorn

    @final
    class Quiet(uvicorn.Server):
        """Leaves signals to its program."""

        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    return Quiet(config)


def _config(gateway: Gateway, grace: float, patience: float) -> Config:
    """Describe a server that adds nothing and believes nobody: that is the gateway's matter."""
    import uvicorn

    from aiopatterns.gateway.door import door

    return uvicorn.Config(
        gateway,
        http=door(gateway.limits, patience=patience),
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="critical",  # the gateway's events tell what is wrong, and what was cut off is not
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=ceil(grace),
        ws_max_size=gateway.limits.max_body,
    )


async def _cut_off(server: Server) -> None:
    """End what is under way, and what still listens."""
    state = server.server_state
    for task in state.tasks:
        task.cancel()
    for connection in list(state.connections):
        connection.transport.abort()
    for each in getattr(server, "servers", ()):
        each.close()
    while state.tasks:
        await sleep(_LOOK)


async def _heed(server: Server, *, task_status: TaskStatus[None]) -> None:
    """End a server at the first signal, at once at the second."""
    with open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            server.force_exit = server.should_exit
            server.should_exit = True


async def _tell(server: Server, task_status: TaskStatus[None]) -> None:
    """Tell when a server has begun; it does not say so itself."""
    while not server.started:
        await sleep(_LOOK)
    task_status.started()
