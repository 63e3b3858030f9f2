"""A product catalogue behind a cache: single and batch loads, tags, an outage, and statistics.

Two services read one catalogue through caches of one name. Without an argument each has memory
only; with the URL of a Redis they share what they have loaded, and what one of them invalidates
the other forgets. Every step is checked, and in the end stands what the cache has spared.

Run: python docs/examples/cache_manager.py [redis://localhost:6379]
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiopatterns import open_backend
from aiopatterns.cache import Cache, CacheStatistics, LoadTimeouts, Ttl, cached

if TYPE_CHECKING:
    from aiopatterns.backends import Backend

READERS = 50
PRODUCTS = 200


@dataclass
class Product:
    """What the catalogue sells."""

    id: int
    name: str
    price: float


@dataclass
class Catalogue:
    """The slow source: it counts how often it was asked."""

    prices: dict[int, float] = field(
        default_factory=lambda: {number: 10.0 + number for number in range(PRODUCTS)}
    )
    calls: int = 0
    down: bool = False

    async def product(self, product_id: int) -> Product:
        """Return one product."""
        await self._answer()
        return Product(product_id, f"product {product_id}", self.prices[product_id])

    async def products(self, product_ids: list[int]) -> dict[int, Product]:
        """Return those products that exist, by one query."""
        await self._answer()
        known = (number for number in product_ids if number in self.prices)
        return {
            number: Product(number, f"product {number}", self.prices[number]) for number in known
        }

    async def _answer(self) -> None:
        self.calls += 1
        await asyncio.sleep(0.005)
        if self.down:
            raise ConnectionError("the catalogue is down")


class CacheManager:
    """What the rest of a service uses: products, by one or by many.

    Args:
        catalogue: Where they come from.
        backend: A second tier that services share, or None.
    """

    def __init__(self, catalogue: Catalogue, backend: Backend | None) -> None:
        self._catalogue = catalogue
        self.shared = backend is not None
        self.cache: Cache[str, Product] = Cache(
            "catalogue",
            ttl=Ttl(0.5, stale=60, negative=5, jitter=0.1),
            max_size=1_000,
            load=LoadTimeouts(hard=2.0),
            backend=backend,
            type=Product,
        )
        keep = cached(self.cache, key="product:{product_id}", tags=["products"])
        self.product = keep(catalogue.product)

    async def products(self, product_ids: list[int]) -> dict[int, Product]:
        """Return those products that exist; one query for all that are not in the cache."""

        async def load(keys: list[str]) -> dict[str, Product]:
            numbers = [int(key.removeprefix("product:")) for key in keys]
            found = await self._catalogue.products(numbers)
            return {f"product:{number}": product for number, product in found.items()}

        keys = {f"product:{number}": number for number in product_ids}
        found = await self.cache.get_or_load_many(keys, load, tags=["products"])
        return {keys[key]: value for key, value in found.items() if isinstance(value, Product)}

    async def change_price(self, product_id: int, price: float) -> None:
        """Write first, then invalidate."""
        self._catalogue.prices[product_id] = price
        await self.product.invalidate(product_id)


async def show(services: list[CacheManager], catalogue: Catalogue) -> None:
    """Use the caches as a busy day would."""
    first, second = services
    same = await asyncio.gather(*(first.product(7) for _ in range(READERS)))
    assert {product.price for product in same} == {17.0}
    assert catalogue.calls == 1, "fifty readers, one query"

    found = await second.products([*range(100), 9_999])
    assert len(found) == 100, "what does not exist is left out"
    assert catalogue.calls == 2, "a hundred products, one query"
    await second.products([*range(100), 9_999])
    assert catalogue.calls == 2, "and that it does not exist is remembered"

    await first.change_price(7, 1.0)
    assert (await first.product(7)).price == 1.0
    if first.shared:
        await asyncio.sleep(0.2)
        assert (await second.product(7)).price == 1.0, "told by the other service"

    await asyncio.sleep(0.6)
    catalogue.down = True
    assert (await first.product(7)).price == 1.0, "stale, but there"
    await asyncio.sleep(0.05)
    catalogue.down = False
    await first.cache.invalidate_tags("products")
    calls = catalogue.calls
    await first.product(7)
    assert catalogue.calls == calls + 1, "a tag has taken all products away"


def row(name: str, figures: CacheStatistics) -> str:
    """One line of the report."""
    return (
        f"{name:8} {figures.hits:6} {figures.misses:7} {figures.joins:6} {figures.loads:6} "
        f"{figures.stale:6} {figures.errors:7} {figures.size:5} {figures.hit_ratio:10.0%}"
    )


async def main(url: str | None) -> None:
    """Run two services over one catalogue."""
    catalogue = Catalogue()
    backend = None if url is None else open_backend(url)  # services in one process share one
    services = [CacheManager(catalogue, backend) for _ in range(2)]
    async with AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(service.cache)
        await show(services, catalogue)
        figures = [service.cache.statistics() for service in services]
    print(f"{url or 'memory'}: the catalogue was asked {catalogue.calls} times")
    print("cache      hits  misses  joins  loads  stale  errors  size  hit ratio")
    for name, each in zip(("first", "second"), figures, strict=True):
        print(row(name, each))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
