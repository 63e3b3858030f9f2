"""Pieces: what is asked of the shared tier goes in pieces of a bounded size, each with its own time.

One command for 50,000 keys takes a server longer than a caller may wait for it, and holds up
everybody else meanwhile. Up to :data:`PIECE` keys are one command, as they always were; more are
several, one after the other. A server that answers each of them in time is not lost.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.records import Change
    from aiopatterns.cache.gate import Gate

__all__ = ["PIECE", "Pieces"]

T = TypeVar("T")

#: Keys in one command at most.
PIECE: Final = 1_000


@final
class Pieces:
    """Reads and changes keys of the shared tier, through the gate.

    Args:
        backend: Where they are.
        gate: How it is asked.
    """

    __slots__ = ("_backend", "_gate")

    def __init__(self, backend: Backend, gate: Gate) -> None:
        self._backend = backend
        self._gate = gate

    async def get(self, names: Collection[str], *, piece: int = PIECE) -> dict[str, bytes] | None:
        """Return what keys hold, or None if that could not be told of all.

        Args:
            names: The keys.
            piece: How many go in one command.
        """
        kv = self._backend.kv
        if len(names) <= piece:
            return await self._gate.call(partial(kv.get_many, names))
        found: dict[str, bytes] = {}
        for some in _pieces(names, piece):
            got = await self._gate.call(partial(kv.get_many, some))
            if got is None:
                return None
            found.update(got)
        return found

    async def change(self, changes: Sequence[Change]) -> list[bool | None]:
        """Make changes; return of each whether it was made, None where that is not known."""
        made: list[bool | None] = []
        for some in _pieces(changes, PIECE):
            done = await self._gate.call(partial(self._backend.kv.change_many, some))
            made += [None] * len(some) if done is None else done
        return made


def _pieces(items: Collection[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while piece := list(islice(rest, size)):
        yield piece
