"""What a service's handler may know about the message that it serves, and whom it may ask.

A handler that wants it takes ``ctx: Context`` as its first positional parameter. What it sends
through it goes on behalf of the same request: correlation, deadline and hops travel along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiopatterns.core.context import Context as BaseContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.messaging.broker import Broker
    from aiopatterns.messaging.message import Message

__all__ = ["Context"]


@dataclass(slots=True, kw_only=True)
class Context(BaseContext):
    """One call of one handler.

    Attributes:
        attempt: Always 1: a live message is handled at most once.
        deadline: When whoever asked gives up, in monotonic seconds, or None.
        correlation_id: Id that joins everything done for one request, or None.
        hops: How many services led to this one.
        state: What the service's lifespan yielded.
        service: The service's name.
        handler: The handler's name.
        broker: Where the service runs.
        message: The whole message; None for what the clock calls.

    Example::

        @orders.command("order.create")
        async def create(ctx: Context, order: NewOrder) -> dict[str, object]:
            user = await ctx.request("user.get", {"id": order.user})
            await ctx.publish("order.created", {"user": user["name"]})
            return {"created": True}
    """

    service: str
    handler: str
    broker: Broker
    message: Message | None = None

    async def request(
        self,
        topic: str,
        payload: object = None,
        *,
        timeout: float = 5.0,
        type: str | None = None,
        version: int = 1,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask another service; see :meth:`Broker.request <aiopatterns.messaging.Broker.request>`."""
        return await self.broker.request(
            topic,
            payload,
            timeout=timeout,
            type=type,
            version=version,
            key=key,
            headers=headers,
        )

    async def send(
        self,
        topic: str,
        payload: object = None,
        *,
        type: str | None = None,
        version: int = 1,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Give a command away; see :meth:`Broker.send <aiopatterns.messaging.Broker.send>`."""
        await self.broker.send(topic, payload, type=type, version=version, key=key, headers=headers)

    async def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        type: str | None = None,
        version: int = 1,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Tell an event; see :meth:`Broker.publish <aiopatterns.messaging.Broker.publish>`."""
        await self.broker.publish(
            topic, payload, type=type, version=version, key=key, headers=headers
        )
