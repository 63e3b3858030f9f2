"""Failure detectors: a fixed patience beside one that has learnt the rhythm of its peer."""

from __future__ import annotations

from aiopatterns.cluster import Heartbeats, PhiAccrual
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate


async def main() -> None:
    fixed, learnt = Heartbeats(timeout=30), PhiAccrual(threshold=8)
    for _ in range(100):  # a peer that speaks every second
        fixed.beat("a")
        learnt.beat("a")
        await sleep(1)
    assert fixed.is_alive("a")
    assert learnt.is_alive("a")

    noticed = 0
    while learnt.is_alive("a"):  # silence
        await sleep(0.5)
        noticed += 1
    assert fixed.is_alive("a"), "thirty seconds are not over yet"
    await sleep(30)
    assert not fixed.is_alive("a")
    print(f"the learnt one noticed after {noticed / 2:.1f} s more, the fixed one after 30 s")


if __name__ == "__main__":
    simulate(main)  # virtual time: it is over at once
