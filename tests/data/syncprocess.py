"""Processes that synchronise two stores and are killed: ``python -m ... LEFT RIGHT STRIDE``.

The names of the places hold ``{}`` for the number of the point. For each point, or each second one
and so on by the stride, one process fills its two stores, begins to synchronise, and is killed there by SIGKILL: before a transaction, in it
when all statements are done, and after it. The first one that comes to its end is the last; then
its number is printed.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import anyio

from aiopatterns.data import Merge, SqlSyncStore, Synchronizer, merge_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiopatterns.data.draft import Draft

STRATEGY: Final = Merge(merge_fields({}))
LEFT: Final[dict[str, Any]] = {"a": {"n": 1}, "b": {"n": 2}, "both": {"left": 1}, "c": {"n": 3}}
RIGHT: Final[dict[str, Any]] = {"both": {"right": 1}, "d": {"n": 4}, "e": {"n": 5}}
EXPECTED: Final = LEFT | RIGHT | {"both": {"left": 1, "right": 1}}
BATCH: Final = 2


def stores(left: str, right: str, point: int) -> tuple[SqlSyncStore, SqlSyncStore]:
    """Return the stores of one point; those in one database have tables of their own."""

    def store(url: str, name: str) -> SqlSyncStore:
        return SqlSyncStore(url.replace("{}", str(point)), name=name, table=f"{name}_{point}")

    return store(left, "left"), store(right, "right")


async def fill(store: SqlSyncStore, records: dict[str, Any]) -> None:
    await store.transact(
        list(records), lambda draft: [draft.put(key, value) for key, value in records.items()]
    )


class Mortal:
    """Kills this process at a point."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.points = 0

    def point(self) -> None:
        if self.points == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.points += 1

    def strike(self, monkeypatched: type[SqlSyncStore]) -> None:
        """Make each transaction of each store three points."""
        transact, write = monkeypatched.transact, monkeypatched._write

        async def mortal(
            store: Any,
            keys: Collection[str],
            plan: Callable[[Draft], Any],
            *,
            dry_run: bool = False,
        ) -> Any:
            self.point()
            answer = await transact(store, keys, plan, dry_run=dry_run)
            self.point()
            return answer

        async def writing(store: Any, link: Any, draft: Draft) -> None:
            await write(store, link, draft)
            self.point()

        for name, method in (("transact", mortal), ("_write", writing)):
            setattr(monkeypatched, name, method)


async def run(left: str, right: str, point: int) -> None:
    ours, theirs = stores(left, right, point)
    await fill(ours, LEFT)
    await fill(theirs, RIGHT)
    Mortal(point).strike(SqlSyncStore)
    await Synchronizer(ours, theirs, strategy=STRATEGY, batch=BATCH).run()


def main(left: str, right: str, stride: str) -> int:
    """Return the first point that there is not."""
    for point in count(step=int(stride)):
        child = os.fork()
        if not child:
            anyio.run(run, left, right, point)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return point
        assert os.WIFSIGNALED(status), f"point {point}: status {status}"
    raise AssertionError


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
