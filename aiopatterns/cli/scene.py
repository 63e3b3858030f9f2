"""What an act of the demo shows: a few figures, a few bars, the last things that happened.

An act only says what is to be seen; how it is drawn is the business of a view
(:mod:`aiopatterns.cli.stage`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Act", "Bar", "Figure", "Scene", "Tone"]

Tone: TypeAlias = Literal["plain", "good", "bad", "busy", "dim"]


@final
@dataclass(frozen=True, slots=True)
class Figure:
    """A number with a name.

    Args:
        label: Its name.
        value: The number, as it is shown.
        tone: How it is meant.
    """

    label: str
    value: str
    tone: Tone = "plain"


@final
@dataclass(frozen=True, slots=True)
class Bar:
    """A share of something.

    Args:
        label: What it is.
        share: 0 to 1.
        text: What is said about it.
        tone: How it is meant.
    """

    label: str
    share: float
    text: str
    tone: Tone = "busy"


@final
@dataclass(frozen=True, slots=True)
class Scene:
    """What is to be seen at one moment.

    Args:
        figures: The numbers.
        bars: The bars, from top to bottom.
        notes: What happened last, the newest at the end.
        room: Lines that are kept for notes, so that a screen does not grow.
    """

    figures: tuple[Figure, ...]
    bars: tuple[Bar, ...] = ()
    notes: tuple[str, ...] = ()
    room: int = 0


class Act(Protocol):
    """One act of the demo. It runs once."""

    @property
    def name(self) -> str:
        """What ``--act`` calls it."""
        ...

    @property
    def title(self) -> str:
        """What it shows, in one line."""
        ...

    async def run(self) -> None:
        """Play to the end."""
        ...

    def scene(self) -> Scene:
        """Return what is to be seen now."""
        ...

    def facts(self) -> Mapping[str, object]:
        """Return how it went, as plain data."""
        ...

    def ending(self) -> str:
        """Say how it went, in one line."""
        ...

    def well(self) -> bool:
        """Whether it showed what it should."""
        ...
