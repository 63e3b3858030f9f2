"""Serving: a dashboard behind uvicorn, until somebody says that it is over.

Nothing is logged of a request, so a token in an address is not either; no header of a proxy is
believed. Streams that are open at the signal end within a second, and so does the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyio import TASK_STATUS_IGNORED

from aiopatterns.gateway.serving import run_until_signal

if TYPE_CHECKING:
    import socket

    from anyio.abc import TaskStatus

    from aiopatterns.dashboard.app import Dashboard

__all__ = ["serve"]

# Seconds for what is under way at the signal; a stream would go on for ever.
_GRACE: Final = 1


async def serve(
    dashboard: Dashboard,
    listener: socket.socket,
    *,
    task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
) -> None:
    """Serve a dashboard until SIGTERM or Ctrl-C.

    Args:
        dashboard: It is open already.
        listener: A socket that is bound; it is closed at the end.
        task_status: Told when requests are taken.

    Cancellation: the server ends at once.

    Example::

        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with Dashboard("redis://localhost:6379") as dashboard:
                print(dashboard.address(f"http://127.0.0.1:{listener.getsockname()[1]}"))
                await serve(dashboard, listener)
    """
    import uvicorn

    config = uvicorn.Config(
        dashboard,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="critical",
        timeout_graceful_shutdown=_GRACE,
    )
    await run_until_signal(config, listener, task_status=task_status)
