"""Policy registry: policies by name, exchanged while calls are under way."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiopatterns import Retry, Stack
from aiopatterns.resilience import Constant, PolicyRegistry

policies = PolicyRegistry()
billing = policies.define("billing", Stack(Retry(on=OSError, attempts=2, backoff=Constant(0))))
attempts: list[int] = []


@billing
async def charge() -> None:
    attempts.append(1)
    raise ConnectionError("billing is down")


async def count() -> int:
    attempts.clear()
    with suppress(ConnectionError):
        await charge()
    return len(attempts)


async def main() -> None:
    before = await count()
    policies.reload("billing", Stack(Retry(on=OSError, attempts=5, backoff=Constant(0))))
    after = await count()
    assert (before, after) == (2, 5)
    print(f"{before} attempts before the reload, {after} after it; the function is the same")


if __name__ == "__main__":
    asyncio.run(main())
