"""Engines: where the chunks of a run are worked on, behind three calls.

The system lists the files, cuts them into chunks and looks at the whole; an engine does what lies
between, stage by stage::

    DataProcessor  --- chunks --->  ingest   ---> facts of each file
                   --- chunks --->  process  ---> names, volumes
                   --- chunks --->  count    ---> words of each package

    LocalEngine    the processes of this program, or this task   (an executor)
    Fleet          worker processes here and on other machines   (jobs over a backend)

Guarantees of all: each chunk counts once, whatever fails in between and however often it was
tried; the same chunks give the same result in every engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from aiopatterns.processor.corpus import Chunk, Trouble
    from aiopatterns.processor.progress import Progress
    from aiopatterns.processor.stages import Facts, Volume

__all__ = ["Engine", "Lexicon", "Words"]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What processing gives.

    Args:
        names: Names in code, with their counts.
        volume: Characters of each kind.
        troubles: What could not be read.
    """

    names: dict[str, int]
    volume: Volume
    troubles: tuple[Trouble, ...]


class Words(NamedTuple):
    """What counting gives: the vocabulary of each package, and what could not be read."""

    packages: dict[str, dict[str, int]]
    troubles: tuple[Trouble, ...]


class Engine(Protocol):
    """Where chunks are worked on."""

    @property
    def capacity(self) -> int:
        """How many chunks are worked on at once."""
        ...

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Return the block in which the engine works; one run at a time."""
        ...

    async def ingest(self, chunks: Sequence[Chunk], progress: Progress) -> list[Facts]:
        """Read, decode, hash and measure; the facts come in any order."""
        ...

    async def process(self, chunks: Sequence[Chunk], progress: Progress) -> Lexicon:
        """Take code and prose apart."""
        ...

    async def count(self, chunks: Sequence[Chunk], progress: Progress) -> Words:
        """Count the words of the chunks that were processed before."""
        ...
