"""Where a peer is reached over TCP: host and port as one text, and who can get there."""

from __future__ import annotations

from ipaddress import ip_address

from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.core.validate import instance

__all__ = ["at_loopback", "everywhere", "host_and_port", "joined"]


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
