"""``aiopatterns gateway``: an API gateway from a file, until a signal.

::

    SIGHUP            the file is read again; if it is wrong, everything stays as it is
    SIGTERM, Ctrl-C   no new connection; what was accepted is answered, within the grace; exit 0

The file is read, and the port is taken, before anything begins: what is wrong with either is one
line and an exit code.
"""

from __future__ import annotations

import signal
import socket
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import anyio

from aiopatterns.cli.exits import DONE
from aiopatterns.core.telemetry import install_listener, log_events
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.config import load_config
from aiopatterns.gateway.reloading import reload_on_hangup

if TYPE_CHECKING:
    from argparse import Namespace

    from uvicorn import Server

    from aiopatterns.core.telemetry import Event, Listener
    from aiopatterns.gateway.config import GatewayConfig

__all__ = ["gateway"]

# Connections that wait to be accepted.
_BACKLOG: Final = 2048
# Connections beside which a new one is answered with 503 at once.
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def gateway(options: Namespace) -> int:
    """Serve until a signal; returns the exit code.

    Args:
        options: ``file``, ``host``, ``port`` and ``grace``; ``debug`` logs every request.

    Raises:
        ConfigError: The file is wrong.
        OSError: The file cannot be read, or the port cannot be taken.
        ImportError: An extra is missing; it names the command.
        BackendUnavailableError: Nobody answers at the beginning.
    """
    config = load_config(options.file)
    log = log_events()
    listener = log if "debug" in options else partial(_log_rare, log)
    uvloop = {"use_uvloop": find_spec("uvloop") is not None}
    with _listen(options.host, options.port) as listening, install_listener(listener):
        anyio.run(_serve, config, listening, options.grace, backend_options=uvloop)
    print("ended", flush=True)
    return DONE
