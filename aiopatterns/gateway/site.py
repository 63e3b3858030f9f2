"""One endpoint as the gateway sees it: where it is, its circuit, and its places.

A circuit belongs to an endpoint, not to a route or a service: of five instances one may be broken.
It learns how a request went when the head of the answer is there; that a body takes long to stream is
the client's affair as often as the service's. A place of the bulkhead is held until the body's end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final
from urllib.parse import urlsplit

from aiopatterns.core.errors import BulkheadFullError
from aiopatterns.resilience.bulkhead import Bulkhead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiopatterns.cluster.instance import ServiceInstance
    from aiopatterns.gateway.policy import BreakerRules
    from aiopatterns.gateway.transport import Incoming
    from aiopatterns.resilience.breaker import CircuitBreaker
    from aiopatterns.resilience.permit import Permit

__all__ = ["Held", "Site"]

_HTTPS = 443
_HTTP = 80


@final
class Site:
    """An endpoint.

    Args:
        host: Name or address, IPv6 without brackets.
        port: Its port.
        tls: Whether it speaks TLS.
        base: Path in front of every path that is sent to it, without a slash at its end.
        rules: When it is not asked; None always asks.
        bulkhead: Requests in flight at most; None for any number.
    """

    __slots__ = ("base", "breaker", "bulkhead", "host", "instance", "name", "port", "shown", "tls")

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: bool,
        base: str = "",
        rules: BreakerRules | None = None,
        bulkhead: int | None = None,
    ) -> None:
        self.host: str = host
        self.port: int = port
        self.tls: bool = tls
        self.base: bytes = base.encode()
        bare = f"[{host}]" if ":" in host else host
        #: For people, errors and events: host and port.
        self.name: str = f"{bare}:{port}"
        #: The ``Host`` header.
        usual = port == (_HTTPS if tls else _HTTP)
        self.shown: bytes = (bare if usual else self.name).encode()
        self.breaker: CircuitBreaker | None = None if rules is None else rules.make(self.name)
        self.bulkhead: Bulkhead | None = None if bulkhead is None else Bulkhead(bulkhead)
        #: The record that it was made of, as it was seen last.
        self.instance: ServiceInstance | None = None

    @property
    def id(self) -> str:
        """Id of the instance, or the name of an endpoint that is none."""
        return self.name if self.instance is None else self.instance.id

    def serves(self, instance: ServiceInstance) -> bool:
        """Whether a newer record of the instance is still of this endpoint."""
        mine = self.instance
        return (
            mine is not None
            and mine.address == instance.address
            and mine.version == instance.version
            and mine.metadata == instance.metadata
        )

    def admit(self) -> Permit | None:
        """Claim what one request needs; ending the permit and :meth:`release` give it back.

        Returns:
            The permit of the circuit, if there is one.

        Raises:
            CircuitOpenError: The circuit is open.
            BulkheadFullError: No place is left.
        """
        permit = None if self.breaker is None else self.breaker.try_acquire()
        if self.bulkhead is not None and not self.bulkhead.try_acquire():
            if permit is not None:
                permit.drop()
            raise BulkheadFullError(name=self.name)
        return permit

    def release(self) -> None:
        """Give the place back."""
        if self.bulkhead is not None:
            self.bulkhead.release()

    @staticmethod
    def of_url(url: str, rules: BreakerRules | None, bulkhead: int | None) -> Site:
        """Return the endpoint of a base URL."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        port = parts.port or (_HTTPS if tls else _HTTP)
        base = parts.path.rstrip("/")
        host = parts.hostname or ""
        return Site(host, port, tls=tls, base=base, rules=rules, bulkhead=bulkhead)

    @staticmethod
    def of_instance(
        instance: ServiceInstance, rules: BreakerRules | None, bulkhead: int | None
    ) -> Site:
        """Return the endpoint of an instance; its metadata may say ``scheme: https``."""
        tls = instance.metadata.get("scheme") == "https"
        host = instance.host.strip("[]")
        site = Site(host, instance.port, tls=tls, rules=rules, bulkhead=bulkhead)
        site.instance = instance
        return site


@final
class Held:
    """A body that gives back a place when it ends or is closed.

    Args:
        incoming: The body.
        site: Where the place was taken.
    """

    __slots__ = ("_incoming", "_site")

    def __init__(self, incoming: Incoming, site: Site) -> None:
        self._incoming = incoming
        self._site: Site | None = site

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body."""
        return aiter(self._incoming)

    async def aclose(self) -> None:
        """Close the body and give the place back; harmless if done already."""
        site, self._site = self._site, None
        if site is not None:
            site.release()
        await self._incoming.aclose()
