"""Conflict resolution: two people edit one address while apart, and no edit is lost."""

from __future__ import annotations

from aiopatterns.data import HybridClock, LastWriteWins, Merge, Versioned, resolve, three_way


def main() -> None:
    rome, oslo = HybridClock("rome"), HybridClock("oslo")
    base = Versioned.first("user:1", {"name": "Ann", "city": "Rome"}, stamp=rome.now())
    oslo.update(base.stamp)

    ours = base.next({"name": "Anna", "city": "Rome"}, stamp=rome.now())
    theirs = base.next({"name": "Ann", "city": "Oslo"}, stamp=oslo.now())

    decided = resolve(ours, theirs, strategy=LastWriteWins())
    assert decided.relation == "concurrent"
    assert decided.conflict is not None, "it is told, although it was decided"

    merged = resolve(ours, theirs, strategy=Merge(three_way), base=base)
    assert merged.winner.value == {"name": "Anna", "city": "Oslo"}
    print(f"last writer: {decided.winner.value}; merged: {merged.winner.value}")


if __name__ == "__main__":
    main()
