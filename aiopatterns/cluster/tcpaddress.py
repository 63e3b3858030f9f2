"""Where a peer is reached over TCP: host and port as one text, and who can get there."""

from __future__ import annotations

from ipaddress import ip_address
from socket import AF_INET, AF_INET6, SOCK_DGRAM, socket

from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.core.validate import instance

__all__ = ["at_loopback", "everywhere", "host_and_port", "joined", "outward"]


def host_and_port(name: str, address: str) -> tuple[str, int]:
    """Split ``"host:port"``, an IPv6 address in brackets.

    Args:
        name: How an error calls it.
        address: The text.

    Raises:
        TypeError: It is no text.
        ValueError: It has no host, or no port from 1 to 65,535.
    """
    instance(name, address, str, 'text as "host:port"')
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not (colon and port.isascii() and port.isdigit()) or (":" in host and not bracketed):
        msg = f'{name} must be "host:port" (IPv6 as "[::1]:7000"), not {address!r}'
        raise ValueError(msg)
    try:
        found = ServiceInstance("peer", host, int(port))
    except ValueError as error:
        msg = f'{name} must be "host:port", not {address!r}: {error}'
        raise ValueError(msg) from None
    return found.host.strip("[]"), found.port


def joined(host: str, port: int) -> str:
    """Return host and port as one text, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def at_loopback(host: str) -> bool:
    """Whether only this machine reaches that host; a name that is not ``localhost`` may be any."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def everywhere(host: str) -> bool:
    """Whether that host stands for all addresses of a machine, and so for no place to call."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def outward(host: str) -> str:
    """Return the address of this machine that others see, for who listens ``everywhere``.

    It is the one from which this machine would call a stranger; nothing is sent for that.

    Raises:
        OSError: This machine has no way to others of that family.
    """
    family, stranger = (AF_INET6, "2001:db8::1") if ":" in host else (AF_INET, "192.0.2.1")
    with socket(family, SOCK_DGRAM) as probe:
        try:
            probe.connect((stranger, 9))
        except OSError as error:
            msg = (
                f"advertise must be given: nothing tells where others reach host {host!r} ({error})"
            )
            raise OSError(error.errno, msg) from error
        address: str = probe.getsockname()[0]
    return address
