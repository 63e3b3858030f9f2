"""What is asked of caches: traces generated here with a seed, and public ones where they are.

The public ones are ``web12`` and ``orm_busy_1m`` (cache2k, CC BY 4.0, headissue GmbH, Jens Wilke)
and ``glimpse`` (the authors of LIRS), one key a line, gzipped. They are no part of this project:
their folder is named by ``AIOPATTERNS_TRACES``, or is ``../shared/data/traces`` beside it.
"""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("AIOPATTERNS_TRACES") or ROOT.parent / "shared" / "data" / "traces")
LENGTH = 100_000
KEYS = 10_000
SIZES = (100, 500, 2_000)
# Name of each public trace, and the sizes at which it was measured in the study of caches.
PUBLIC = {
    "glimpse": (500, 1_000, 2_000),
    "web12": (300, 1_000, 3_000),
    "orm_busy_1m": (300, 1_000, 5_000),
}


def zipf(chance: random.Random, length: int, skew: float = 0.9) -> list[int]:
    weights = list(accumulate(1 / rank**skew for rank in range(1, KEYS + 1)))
    return chance.choices(range(KEYS), cum_weights=weights, k=length)


def scans(chance: random.Random) -> list[int]:
    """Popular keys, and every now and then a walk over ones that are asked for just once."""
    trace: list[int] = []
    fresh = KEYS
    while len(trace) < LENGTH:
        trace += [*zipf(chance, 3_000), *range(fresh, fresh + 2_000)]
        fresh += 2_000
    return trace


def loops(chance: random.Random) -> list[int]:
    """Popular keys, and between them a walk around the same 3,000, again and again."""
    popular = zipf(chance, LENGTH // 2)
    return [key for at, one in enumerate(popular) for key in (one, KEYS + at % 3_000)]


def shifting(chance: random.Random) -> list[int]:
    """Popularity moves on: after each quarter of the trace other keys are the popular ones."""
    order, trace = list(range(KEYS)), []
    for _ in range(4):
        chance.shuffle(order)
        trace += [order[rank] for rank in zipf(chance, LENGTH // 4)]
    return trace


def drifting(chance: random.Random) -> list[int]:
    """Popularity moves on with every request: the newest keys are always the popular ones."""
    return [rank - at // 10 for at, rank in enumerate(zipf(chance, LENGTH))]


def vanishing(chance: random.Random) -> list[int]:
    """The other way round: a key becomes more popular with every request, until it is gone."""
    return [rank + at // 10 for at, rank in enumerate(zipf(chance, LENGTH))]


SEEDED: dict[str, Callable[[random.Random], list[int]]] = {
    "Zipf 0.7": lambda chance: zipf(chance, LENGTH, 0.7),
    "Zipf 0.99": lambda chance: zipf(chance, LENGTH, 0.99),
    "scans": scans,
    "loops": loops,
    "shifting": shifting,
    "drifting": drifting,
    "vanishing": vanishing,
}


def seeded(name: str) -> list[int]:
    return SEEDED[name](random.Random(name))


def public(name: str) -> list[int] | None:
    """A public trace; None with one line where it is not there."""
    path = FOLDER / f"{name}.txt.gz"
    if not path.is_file():
        print(f"left out: trace {name}, for {path} is not there (see AIOPATTERNS_TRACES)")
        return None
    with gzip.open(path, "rt") as lines:
        return [int(line) for line in lines]
