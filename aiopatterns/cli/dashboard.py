"""``aiopatterns dashboard``: the page that shows what runs over a backend, until a signal.

The address with its token is printed once, to standard output, and nowhere else; whoever sees that
may look. The port is taken, and the backend asked, before anything is printed: what is wrong with
either is one line and an exit code.
"""

from __future__ import annotations

import ipaddress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import anyio

from aiopatterns.cli.exits import DONE, UsageError
from aiopatterns.cli.port import listen, url_of
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.telemetry import install_listener, log_events
from aiopatterns.dashboard.app import Dashboard
from aiopatterns.dashboard.serving import serve

if TYPE_CHECKING:
    import socket
    from argparse import Namespace

__all__ = ["dashboard"]

# Connections that wait to be accepted.
_BACKLOG: Final = 128


def dashboard(options: Namespace) -> int:
    """Serve until a signal; returns the exit code.

    Args:
        options: ``backend``, ``host``, ``port``, ``allow_actions``, ``allow_host``, ``queue`` and
            ``show_arguments``.

    Raises:
        UsageError: The backend is of one process.
        ValueError: Its URL is wrong.
        OSError: The port cannot be taken.
        ImportError: An extra is missing; it names the command.
        BackendUnavailableError: Nobody answers at the beginning.
    """
    if options.backend.startswith("memory:"):
        msg = "--backend must be one that processes share, such as redis://localhost:6379"
        raise UsageError(msg)
    page = Dashboard(
        options.backend,
        allow_actions=options.allow_actions,
        hosts=(*_names(options.host), *options.allow_host),
        queues=options.queue,
        show_arguments=options.show_arguments,
    )
    uvloop = {"use_uvloop": find_spec("uvloop") is not None}
    with (
        listen(options.host, options.port, backlog=_BACKLOG) as listening,
        install_listener(log_events()),
    ):
        anyio.run(_serve, page, listening, backend_options=uvloop)
    print("ended", flush=True)
    return DONE


def _names(host: str) -> tuple[str, ...]:
    """Return the name that browsers use for an address, if it is that of one machine."""
    try:
        every = ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        every = False
    return () if every or not host else (host.strip("[]"),)


async def _serve(page: Dashboard, listening: socket.socket) -> None:
    """Serve, and say where as soon as it is true."""
    try:
        async with page, anyio.create_task_group() as tasks:
            await tasks.start(_serve_and_end, page, listening, tasks.cancel_scope)
            print(page.address(url_of(listening)), flush=True)
    except BaseExceptionGroup as errors:  # such as that nobody can read the address
        raise_bare(errors)


async def _serve_and_end(
    page: Dashboard,
    listening: socket.socket,
    scope: anyio.CancelScope,
    *,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    await serve(page, listening, task_status=task_status)
    scope.cancel()
