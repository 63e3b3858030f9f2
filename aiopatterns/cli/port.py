"""The port of a command that serves: taken before anything begins, told as soon as it is true."""

from __future__ import annotations

import errno
import ipaddress
import socket

__all__ = ["listen", "url_of"]


def listen(host: str, port: int, *, backlog: int) -> socket.socket:
    """Take a port.

    Args:
        host: A name or an address of this machine.
        port: 0 for any that is free.
        backlog: Connections that may wait to be accepted.

    Raises:
        OSError: It cannot be taken; the message names host and port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:  # that of a name has no number of the system's
        number = error.errno or errno.EINVAL
        raise OSError(number, f"cannot listen at port {port}: {error.strerror}", host) from None


def url_of(listening: socket.socket) -> str:
    """Return where a client on this machine finds what listens there."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:  # every address is no name for one
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
