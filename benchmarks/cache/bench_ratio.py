"""Hit ratios: S3-FIFO beside LRU, cachetools, theine and the optimum, on seeded and public traces.

A contender is asked for every key of a trace, and stores what it has not. The optimum is that of
Belady, who knows the future and throws out what is asked for last. Figures are counts and the same
in every run (theine's, which rolls dice, nearly), so there is one round.

The goal is that LRU is nowhere ahead, but for one trace that is here to show where it is: in
``vanishing`` each key becomes more popular until it is gone for good, so all that a cache has
learned is wrong. Whoever has such keys takes ``eviction="lru"``.

A small queue that adapts does not close that gap. Measured over all 30 cells, in points against
the fixed tenth, with the share moved by what comes back of either queue soon after it has left:

====================================  =========  ==============  ======================  =========
moved                                 mean gain  worst loss      vanishing, against LRU  orm, mean
====================================  =========  ==============  ======================  =========
not at all (what is here)             0          0               -4.1  -5.8  -7.3        0
S3-FIFO-D of the paper, 1 % a step    +0.25      1.5, Zipf 0.7   -1.0  -1.6  -2.7        +0.28
as ARC does, with each hit            -0.45      7.0, glimpse    -0.8  -2.0  -2.9        -0.06
the last 5 % alone, 1 % a step        +0.13      0.05, web12     -3.5  -4.8  -6.6        +0.45
the last 5 % alone, 5 % a step        +0.43      0.28, web12     -0.6  -1.9  -3.3        +0.33
uses counted up to 1                  -0.11      1.1, Zipf 0.7   -3.3  -3.9  -4.0        -0.31
====================================  =========  ==============  ======================  =========

What reacts fast enough for keys that vanish loses on others, and LRU is ahead there all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

import cachetools
import theine

from aiopatterns.cache.memory import Near
from benchmarks.cache.traces import PUBLIC, SEEDED, SIZES, public, seeded
from benchmarks.harness import Bench, Figure

OURS, OLD = "aiopatterns, S3-FIFO", "aiopatterns, LRU"

bench = Bench("cache/ratio", versions=("cachetools", "theine"), loops=("asyncio",), rounds=1)


def near(trace: list[int], size: int, eviction: str) -> int:
    table: Near[int, int] = Near(max_size=size, eviction=eviction)
    hits, never = 0, math.inf
    for key in trace:
        if table.find(key, 0.0) is not None:
            hits += 1
        else:
            table.put(key, key, fresh_until=never, stale_until=never)
    return hits


def of_cachetools(trace: list[int], size: int, kind: type[cachetools.Cache]) -> int:
    table, hits = kind(size), 0
    for key in trace:
        if table.get(key) is not None:
            hits += 1
        else:
            table[key] = True
    return hits


def of_theine(trace: list[int], size: int) -> int:
    table, hits = theine.Cache(size), 0
    for key in trace:
        _, found = table.get(key)
        if found:
            hits += 1
        else:
            table.set(key, True)
    table.close()
    return hits


def optimum(trace: list[int], size: int) -> int:
    """Belady: the one that is asked for last, or never again, leaves; it may be the new one."""
    following = [len(trace)] * len(trace)
    seen: dict[int, int] = {}
    for at in range(len(trace) - 1, -1, -1):
        following[at] = seen.get(trace[at], len(trace))
        seen[trace[at]] = at
    held: dict[int, int] = {}
    order: list[tuple[int, int]] = []
    hits = 0
    for at, key in enumerate(trace):
        hits += key in held
        held[key] = following[at]
        heappush(order, (-following[at], key))
        while len(held) > size:
            when, last = heappop(order)
            if held.get(last) == -when:
                del held[last]
    return hits


def declare(name: str, trace: list[int], size: int) -> None:
    case = bench.case(f"{name}, {size} entries", clock="count", unit="% hits", warm=False)

    def contender(play: Callable[[list[int], int], int]) -> Callable[[], object]:
        async def run() -> Figure:
            return Figure(100.0 * play(trace, size) / len(trace))

        return run

    case.ours(OURS)(contender(lambda keys, most: near(keys, most, "s3fifo")))
    case.ours(OLD)(contender(lambda keys, most: near(keys, most, "lru")))
    case.peer("cachetools LRUCache", follows="README")(
        contender(lambda keys, most: of_cachetools(keys, most, cachetools.LRUCache))
    )
    case.peer("cachetools LFUCache", follows="README")(
        contender(lambda keys, most: of_cachetools(keys, most, cachetools.LFUCache))
    )
    case.peer("theine (W-TinyLFU)", follows="README: Cache(size)")(contender(of_theine))
    case.limit("optimum (Belady)")(contender(optimum))
    if name != "vanishing":
        case.at_most(1.0, of=OURS, ours=OLD)


for each in SEEDED:
    for most in SIZES:
        declare(each, seeded(each), most)
for each, sizes in PUBLIC.items():
    if (found := public(each)) is not None:
        for most in sizes:
            declare(each, found, most)

if __name__ == "__main__":
    bench.main()
