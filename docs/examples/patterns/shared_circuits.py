"""Shared circuits: what one process learns the hard way, the other need not try."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiopatterns import CircuitBreaker, CircuitOpenError
from aiopatterns.backends import open_backend
from aiopatterns.resilience import CircuitState, Consecutive, Trip, share_circuits


async def down() -> None:
    raise ConnectionError("billing is down")


async def main() -> None:
    backend = open_backend("memory://")  # for several processes: "redis://..."
    trip = Trip(Consecutive(3))
    here, there = CircuitBreaker("billing", trip=trip), CircuitBreaker("billing", trip=trip)
    async with share_circuits(backend, [here]), share_circuits(backend, [there]) as sharing:
        async with asyncio.timeout(10):
            while sharing.statistics().members != {"billing": 2}:
                await asyncio.sleep(0.01)
            for _ in range(3):
                with suppress(ConnectionError):
                    await here.call(down)
            while there.state is not CircuitState.OPEN:
                await asyncio.sleep(0.01)
        try:
            await there.call(down)
        except CircuitOpenError as error:
            print(f"the other process is refused, too: {error}")


if __name__ == "__main__":
    asyncio.run(main())
