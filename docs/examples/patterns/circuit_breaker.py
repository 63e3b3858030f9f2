"""Circuit breaker: a service goes down, is left alone, and is found again by one probe."""

from __future__ import annotations

import asyncio

from aiopatterns import CircuitBreaker, CircuitOpenError
from aiopatterns.resilience import Consecutive, Trip

billing = CircuitBreaker("billing", trip=Trip(Consecutive(3)), open_for=0.02)


class Service:
    healthy = False
    asked = 0

    @billing
    async def charge(self, amount: int) -> str:
        self.asked += 1
        if not self.healthy:
            raise ConnectionError("billing is down")
        return f"charged {amount}"


async def main() -> None:
    service, refused = Service(), 0
    for _ in range(100):
        try:
            await service.charge(5)
        except CircuitOpenError:
            refused += 1
        except ConnectionError:
            pass
    assert (service.asked, refused) == (3, 97)

    service.healthy = True
    await asyncio.sleep(0.03)
    assert await service.charge(5) == "charged 5"
    assert billing.state.name == "CLOSED"
    print(f"{refused} of 100 calls spared the service; closed again by the first that succeeded")


if __name__ == "__main__":
    asyncio.run(main())
