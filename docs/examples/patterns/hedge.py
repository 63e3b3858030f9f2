"""Hedge: when the first replica is slow, a second is asked, and the quicker one wins."""

from __future__ import annotations

import asyncio

from aiopatterns import Hedge

asked: list[str] = []
replicas = iter(["slow", "quick"])


@Hedge(0.01, idempotent=True)
async def read(key: str) -> str:
    replica = next(replicas)
    asked.append(replica)
    await asyncio.sleep(60 if replica == "slow" else 0.001)
    return f"{key} from the {replica} replica"


async def main() -> None:
    answer = await read("user:7")
    assert answer == "user:7 from the quick replica"
    assert asked == ["slow", "quick"]
    assert len(asyncio.all_tasks()) == 1, "the slow call is cancelled and over"
    print(answer)


if __name__ == "__main__":
    asyncio.run(main())
