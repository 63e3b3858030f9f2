"""``aiopatterns gateway``: an API gateway from a file, until a signal.

::

    SIGHUP            the file is read again; if it is wrong, everything stays as it is
    SIGTERM, Ctrl-C   no new connection; what was accepted is answered, within the grace; exit 0

The file is read, and the port is taken, before anything begins: what is wrong with either is one
line and an exit code.
"""

from __future__ import annotations

import signal
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import anyio

from aiopatterns.cli.exits import DONE
from aiopatterns.cli.port import listen, url_of
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.telemetry import install_listener, log_events
from aiopatterns.gateway.aioclient import require
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.config import load_config
from aiopatterns.gateway.reloading import reload_on_hangup
from aiopatterns.gateway.serving import serve

if TYPE_CHECKING:
    import socket
    from argparse import Namespace

    from aiopatterns.core.telemetry import Event, Listener
    from aiopatterns.gateway.config import GatewayConfig

__all__ = ["gateway"]

# Connections that wait to be accepted.
_BACKLOG: Final = 2048


def gateway(options: Namespace) -> int:
    """Serve until a signal, or look at the file alone; returns the exit code.

    Args:
        options: ``file``, ``host``, ``port``, ``grace`` and ``check``; ``debug`` logs every request.

    Raises:
        ConfigError: The file is wrong.
        OSError: The file cannot be read, or the port cannot be taken.
        ImportError: An extra is missing; it names the command.
        BackendUnavailableError: Nobody answers at the beginning.
    """
    config = load_config(options.file)
    door = Gateway.of(config)
    if options.check:
        print(f"{options.file}: {len(config.routes)} routes, nothing is wrong", flush=True)
        return DONE
    require("uvicorn", "httptools")  # before the port is taken and backends are asked
    log = log_events()
    listener = log if "debug" in options else partial(_log_rare, log)
    uvloop = {"use_uvloop": find_spec("uvloop") is not None}
    with (
        listen(options.host, options.port, backlog=_BACKLOG) as listening,
        install_listener(listener),
    ):
        anyio.run(_serve, door, config, listening, options.grace, backend_options=uvloop)
    print("ended", flush=True)
    return DONE


def _log_rare(log: Listener, event: Event) -> None:
    """Log what is worth a line."""
    if event.level != "debug":
        log(event)


async def _serve(
    door: Gateway, config: GatewayConfig, listening: socket.socket, grace: float
) -> None:
    """Serve, and reload at every SIGHUP."""
    try:
        async with door, anyio.create_task_group() as tasks:
            if hasattr(signal, "SIGHUP"):
                await tasks.start(partial(reload_on_hangup, door, config))
            await tasks.start(partial(_serve_and_end, door, listening, grace, tasks.cancel_scope))
            print(
                f"aiopatterns gateway: {url_of(listening)}, {len(door.routes)} routes\n"
                f"Ctrl-C ends it gracefully, twice at once; SIGHUP reads {config.file} again",
                flush=True,
            )
    except BaseExceptionGroup as errors:  # such as that nobody can read the address
        raise_bare(errors)


async def _serve_and_end(
    door: Gateway,
    listening: socket.socket,
    grace: float,
    scope: anyio.CancelScope,
    *,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    """Serve until a signal, then end what goes on beside it."""
    await serve(door, listening, grace=grace, task_status=task_status)
    scope.cancel()
