"""An event loop without an outside world: sockets, pipes, processes and signals are refused.

A simulated run is repeatable because nothing outside can disturb it. What would reach outside
therefore fails at once, with one error that says what to do, instead of failing later and
elsewhere, or of reaching a real server from a unit test.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RealWorldError", "SealedLoop", "SimulationError"]

REFUSED: Final = (
    "add_reader",
    "add_signal_handler",
    "add_writer",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "remove_reader",
    "remove_signal_handler",
    "remove_writer",
    "sendfile",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "subprocess_exec",
    "subprocess_shell",
)
"""Methods of ``asyncio.AbstractEventLoop`` that reach outside (Python 3.11 to 3.14)."""


class SimulationError(RuntimeError):
    """Base of what the simulated loop raises."""


class RealWorldError(SimulationError):
    """Simulated code asked for a socket, a pipe, a subprocess or a signal."""


class SealedLoop(asyncio.BaseEventLoop):
    """The part of an event loop that needs no operating system; the rest raises RealWorldError."""

    def _process_events(self, event_list: object) -> None:
        """Do nothing: no event comes from outside."""

    def _write_to_self(self) -> None:
        """Do nothing: the loop never sleeps, so nothing needs to wake it."""


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(loop: SealedLoop, *args: object, **options: object) -> NoReturn:
        del loop, args, options
        msg = (
            f"loop.{name} needs the real world, but the simulated loop has no sockets, pipes, "
            "processes or signals; mark the test with @pytest.mark.real, or run it on another loop"
        )
        raise RealWorldError(msg)

    refuse.__name__ = name
    refuse.__doc__ = "Raise RealWorldError: the simulated loop has no outside world."
    return refuse


for _name in REFUSED:
    setattr(SealedLoop, _name, _refusal(_name))
