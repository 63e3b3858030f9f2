"""Five shops tell each other their prices, with no server between them, and through a partition.

Each shop is a peer: it knows one other to begin with and finds the rest. A change of price is
broadcast and reaches all. Then the line to Oslo is cut. The others declare it dead, and both sides
go on and change prices. When the line is mended they find together by themselves, and every shop
has every change, each exactly once.

The same program runs on a network in memory, which loses packets on purpose, and over TCP:

Run: python docs/examples/peers.py [memory|tcp]       (memory by default)
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

from aiopatterns.cluster import (
    MemberState,
    MemoryNetwork,
    MemoryTransport,
    PeerNode,
    Secret,
    Swim,
    TCPTransport,
    Transport,
)

KIND = sys.argv[1] if len(sys.argv) > 1 else "memory"
SHOPS = ["oslo", "lima", "rome", "cairo", "delhi"]
ISLAND, MAINLAND = SHOPS[:1], SHOPS[1:]
# Quicker than the defaults, so that the example is over soon.
SWIM = Swim(probe=0.15, timeout=0.06, gossip=0.03, sync=0.5)


@dataclass
class Cable:
    """A transport whose line can be cut: a partition for every transport that has none of its own.

    It is a :class:`~aiopatterns.cluster.Transport` as well, and hands on what passes.
    """

    inner: Transport
    cut: bool = False

    @property
    def address(self) -> str:
        """Where others reach it."""
        return self.inner.address

    @property
    def public(self) -> bool:
        """Whether others than this machine reach it."""
        return self.inner.public

    def check(self, address: str) -> None:
        """Refuse what is no address."""
        self.inner.check(address)

    def serve(
        self,
        name: str,
        *,
        receive: Callable[[bytes], object],
        answer: Callable[[bytes], Awaitable[bytes]],
        secret: Secret,
    ) -> AbstractAsyncContextManager[None]:
        """Listen, but hear nothing while the line is cut."""

        def hear(data: bytes) -> None:
            if not self.cut:
                receive(data)

        async def reply(data: bytes) -> bytes:
            if self.cut:
                raise ConnectionError("the line is cut")
            return await answer(data)

        return self.inner.serve(name, receive=hear, answer=reply, secret=secret)

    def send(self, address: str, data: bytes) -> None:
        """Send a packet, unless the line is cut."""
        if not self.cut:
            self.inner.send(address, data)

    async def exchange(self, address: str, data: bytes, *, timeout: float) -> bytes:
        """Ask, unless the line is cut."""
        if self.cut:
            raise ConnectionError("the line is cut")
        return await self.inner.exchange(address, data, timeout=timeout)


@dataclass
class Shop:
    """One shop: its peer, and the prices it knows."""

    node: PeerNode
    prices: dict[str, int] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)

    def hear(self, sender: str, message: dict[str, int]) -> None:
        """Take in prices that another shop has changed."""
        self.heard.append(sender)
        self.prices |= message

    async def change(self, **prices: int) -> None:
        """Change prices here, and tell all others."""
        self.prices |= prices
        await self.node.broadcast(prices)

    def sees(self, state: MemberState) -> set[str]:
        """Who stands so, as far as this shop knows."""
        return {name for name, member in self.node.members.items() if member.state is state}


class Town:
    """All shops, and the lines between them."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(seed=7, loss=0.05, delay=0.002)
        self.cables: list[Cable] = []
        self.shops: dict[str, Shop] = {}

    def transport(self, name: str) -> Transport:
        """Return the line of a new shop."""
        if KIND == "memory":
            return MemoryTransport(self.network)
        cable = Cable(TCPTransport("127.0.0.1", 0))
        if name in ISLAND:
            self.cables.append(cable)
        return cable

    async def open(self, name: str, stack: AsyncExitStack) -> None:
        """Open a shop that knows one other, if there is one."""
        seeds = [shop.node.address for shop in self.shops.values()][-1:]
        node = PeerNode(
            name, transport=self.transport(name), seeds=seeds, swim=SWIM, secret="our prices"
        )
        shop = self.shops[name] = Shop(node)
        node.on_message(shop.hear)
        await stack.enter_async_context(node)

    def cut(self) -> None:
        """Cut the lines of the island."""
        self.network.isolate(*ISLAND)
        for cable in self.cables:
            cable.cut = True

    def mend(self) -> None:
        """Mend them."""
        self.network.heal()
        for cable in self.cables:
            cable.cut = False


async def until(what: str, true: Callable[[], bool]) -> None:
    """Wait until it is true, and say so."""
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)
    print(what)


async def main() -> None:
    """Open five shops and live through a partition."""
    town = Town()
    shops = town.shops
    alive, dead = MemberState.ALIVE, MemberState.DEAD
    async with AsyncExitStack() as stack:
        for name in SHOPS:
            await town.open(name, stack)
        await until(
            "all five know each other",
            lambda: all(shop.sees(alive) == set(SHOPS) for shop in shops.values()),
        )

        await shops["rome"].change(bread=3)
        await until(
            "the price of bread is known everywhere",
            lambda: all(shop.prices == {"bread": 3} for shop in shops.values()),
        )

        town.cut()
        await until(
            "oslo is dead for the others",
            lambda: all(shops[name].sees(dead) == {"oslo"} for name in MAINLAND),
        )
        await shops["lima"].change(milk=2)
        await shops["oslo"].change(fish=9)
        await until(
            "the price of milk is known on the mainland",
            lambda: all(shops[name].prices == {"bread": 3, "milk": 2} for name in MAINLAND),
        )
        assert shops["oslo"].prices == {"bread": 3, "fish": 9}

        town.mend()
        await until(
            "the line is mended: all five are alive again",
            lambda: all(shop.sees(alive) == set(SHOPS) for shop in shops.values()),
        )
        prices = {"bread": 3, "milk": 2, "fish": 9}
        await until(
            "every shop knows every price",
            lambda: all(shop.prices == prices for shop in shops.values()),
        )
        for name, shop in shops.items():  # each change of the others, once
            assert sorted(shop.heard) == sorted({"rome", "lima", "oslo"} - {name})

        # To one shop alone; when it returns, the message has arrived.
        await shops["delhi"].node.send("cairo", {"salt": 1})
        await until("cairo alone knows the price of salt", lambda: "salt" in shops["cairo"].prices)
        assert sum("salt" in shop.prices for shop in shops.values()) == 1


if __name__ == "__main__":
    asyncio.run(main())
