"""Honest histories: written versions, each of which knows of some that were there before."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from aiopatterns.data import Stamp, Versioned
from aiopatterns.data.vector import VersionVector

NODES = "abc"


@st.composite
def histories(draw: st.DrawFn, values: st.SearchStrategy[Any] | None = None) -> list[Versioned]:
    """Return versions of one record as nodes write them that talk now and then."""
    held: dict[str, list[Versioned]] = {node: [] for node in NODES}
    written: list[Versioned] = []
    drawn = st.lists(st.integers(0, 3), max_size=2) if values is None else values
    for time in range(1, draw(st.integers(2, 7))):
        node = draw(st.sampled_from(NODES))
        held[node] += [each for each in written if draw(st.booleans())]
        known = list(held[node])
        stamp, value = Stamp(time, 0, node), draw(drawn)
        deleted = bool(known) and draw(st.booleans()) and draw(st.booleans())
        if known:
            new = Versioned.replacing(known, value, stamp=stamp, deleted=deleted)
        else:
            new = Versioned.first("k", value, stamp=stamp)
        held[node] = [new]
        written.append(new)
    return written


def version(
    value: Any = None, *, time: int = 1, node: str = "a", key: str = "k", **vector: int
) -> Versioned:
    """Return a version of which everything is said."""
    stamp = Stamp(time, 0, node)
    return Versioned(key, value, stamp, stamp, VersionVector(vector or {node: 1}), node)
