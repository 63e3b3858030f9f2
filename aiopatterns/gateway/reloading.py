"""Reloading: a gateway takes over what its file says now, when the process gets SIGHUP.

::

    SIGHUP --> read the file --> all of it right?  yes --> Gateway.reload, in one step
                                                   no  --> nothing changes, GatewayReloadFailed

Reading is done in a thread, so that requests do not wait for a disk. Several signals while one file
is read are one reload afterwards, or more; the last file is always read after the last signal.

Not guaranteed: anything where there is no SIGHUP, as on Windows; call ``Gateway.reload`` there.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from anyio import TASK_STATUS_IGNORED, open_signal_receiver, to_thread

from aiopatterns.core.errors import BackendError, ConfigError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.gateway.config import load_config

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from aiopatterns.gateway.app import Gateway
    from aiopatterns.gateway.config import GatewayConfig

__all__ = ["GatewayReloadFailed", "reload_on_hangup"]


@dataclass(frozen=True, slots=True)
class GatewayReloadFailed(Event):
    """A gateway was told to reload and could not; it goes on as it was.

    Args:
        gateway: Name of the gateway.
        error: Why; no secret of the file is in it.
    """

    name: ClassVar[str] = "aiopatterns.gateway.reload_failed"
    level: ClassVar[str] = "error"

    gateway: str
    error: Exception


async def reload_on_hangup(
    gateway: Gateway,
    config: GatewayConfig,
    *,
    task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
) -> None:
    """Reload ``gateway`` from its file at every SIGHUP; goes on until it is cancelled.

    Args:
        gateway: It is open.
        config: What it was made of.
        task_status: Told when a signal would be heard.

    Raises:
        NotImplementedError: There are no such signals here.
        ClosedError: The gateway is not open any more.

    Cancellation: SIGHUP means again what it meant before.

    Example::

        async with gateway, create_task_group() as tasks:
            await tasks.start(reload_on_hangup, gateway, config)
            await serve()
            tasks.cancel_scope.cancel()
    """
    with open_signal_receiver(signal.SIGHUP) as hangups:
        task_status.started()
        async for _ in hangups:
            config = await _reloaded(gateway, config)


async def _reloaded(gateway: Gateway, before: GatewayConfig) -> GatewayConfig:
    """Reload once; returns what is in force afterwards."""
    try:
        config = await to_thread.run_sync(lambda: load_config(before.file, previous=before))
        await gateway.reload(config)
    except (ConfigError, OSError, ImportError, BackendError) as error:
        if listening():
            emit(GatewayReloadFailed(gateway.name, error))
        return before
    return config
