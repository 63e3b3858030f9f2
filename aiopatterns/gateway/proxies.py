"""Trusted proxies: who is believed about the address of the client.

Anybody can write ``X-Forwarded-For: 127.0.0.1``. Each proxy appends the address that it saw, so the
list is true from its end up to the first address that no trusted proxy has written::

    X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.5        peer: 10.0.0.2   trusted: 10.0.0.0/8
                     whoever  ^ the client   ^ a proxy            ^ a proxy

An entry that is no address ends the search too: the client is then the last one that was one.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["TrustedProxies"]

# Peers whose verdict is remembered.
_REMEMBERED: Final = 1024


@final
class TrustedProxies:
    """The networks whose word is taken; checked by :class:`~aiopatterns.gateway.Limits`.

    Args:
        networks: Addresses and networks.

    Complexity: O(1) for a peer that was seen before, else O(networks).
    """

    __slots__ = ("_networks", "trusts")

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ip_network(each) for each in networks)
        #: Whether an address is that of a trusted proxy.
        self.trusts: Callable[[str], bool] = lru_cache(_REMEMBERED)(self._trusts)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def client(self, peer: str, chain: bytes | None) -> str:
        """Return the address of the client.

        Args:
            peer: A trusted proxy, from which the connection came.
            chain: Its ``X-Forwarded-For``, all values joined.
        """
        client = peer
        for entry in reversed((chain or b"").split(b",")):
            address = _address(entry)
            if address is None:
                break
            client = address
            if not self.trusts(address):
                break
        return client

    def _trusts(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def _address(entry: bytes) -> str | None:
    """Return the address in an entry, which may have brackets and a port."""
    text = entry.strip().decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
