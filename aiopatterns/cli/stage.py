"""How the acts of the demo are shown: a live screen on a terminal, plain lines elsewhere.

A stage only reads the scene of the act that plays, a few times a second, so an act is the same with
and without somebody who looks. The live one needs the ``cli`` extra (rich); without it a terminal
gets plain lines as well, the first of which says how to get the other.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, final

from anyio import create_task_group

from aiopatterns.core.clock import sleep
from aiopatterns.core.lifecycle import raise_bare

if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import RenderableType
    from rich.panel import Panel
    from rich.table import Table

    from aiopatterns.cli.scene import Act, Bar, Figure, Scene

__all__ = ["LiveStage", "NoStage", "PlainStage", "Stage", "drawn", "play", "stage_for"]

_REFRESH: Final = 0.1
_LINE_EVERY: Final = 1.0
_BAR: Final = 36
_WIDTH: Final = 88
_HINT: Final = "for a live screen: pip install 'aiopatterns[cli]'"
_STYLES: Final = MappingProxyType(
    {
        "plain": "bold",
        "good": "bold green",
        "bad": "bold red",
        "busy": "cyan",
        "dim": "dim",
    }
)


class Stage(Protocol):
    """Somebody who watches an act."""

    async def follow(self, act: Act) -> None:
        """Show it, until cancelled."""
        ...

    def close(self, act: Act) -> None:
        """Say how it ended."""
        ...


async def play(act: Act, stage: Stage) -> None:
    """Play an act to its end before a stage.

    Raises:
        Exception: What the act raised.
    """
    try:
        async with create_task_group() as tasks:
            tasks.start_soon(stage.follow, act)
            await act.run()
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        raise_bare(errors)
    stage.close(act)


def stage_for(*, json: bool) -> Stage:
    """Choose: live where somebody looks, plain lines elsewhere, nothing beside JSON.

    Args:
        json: Whether standard output is for the result alone.
    """
    stream = sys.stderr if json else sys.stdout
    if stream.isatty() and find_spec("rich") is not None:
        return LiveStage(stream)
    if json:
        return NoStage()
    return PlainStage(stream, hint=_HINT if stream.isatty() else None)


@final
class NoStage:
    """Shows nothing."""

    __slots__ = ()

    async def follow(self, act: Act) -> None:
        """Return at once."""

    def close(self, act: Act) -> None:
        """Say nothing."""


@final
class PlainStage:
    """A line each second, and one for whatever happens.

    Args:
        stream: Where the lines go.
        hint: A line to begin with.
    """

    __slots__ = ("_hint", "_stream")

    def __init__(self, stream: TextIO, *, hint: str | None = None) -> None:
        self._stream = stream
        self._hint = hint

    async def follow(self, act: Act) -> None:
        """Print until cancelled."""
        if self._hint is not None:
            self._say(self._hint)
            self._hint = None
        self._say(f"== {act.title}")
        while True:
            await sleep(_LINE_EVERY)
            self._say(_line(act.scene()))

    def close(self, act: Act) -> None:
        """Print the last figures, and how it ended."""
        self._say(_line(act.scene()))
        self._say(f"{_mark(act)} {act.ending()}")

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


@final
class LiveStage:
    """A screen that moves; the last picture of each act stays. Needs the ``cli`` extra.

    Args:
        stream: A terminal.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    async def follow(self, act: Act) -> None:
        """Show until cancelled."""
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream)
        with Live(console=console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(drawn(act), refresh=True)
                    await sleep(_REFRESH)
            finally:
                live.update(drawn(act), refresh=True)

    def close(self, act: Act) -> None:
        """Print how it ended."""
        from rich.console import Console

        style = "green" if act.well() else "red"
        console = Console(file=self._stream, highlight=False)
        console.print(f"{_mark(act)} {act.ending()}\n", style=style)


def drawn(act: Act) -> Panel:
    """Draw what is to be seen of an act now."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    scene = act.scene()
    parts: list[RenderableType] = [_figures(scene.figures)]
    if scene.bars:
        parts += ["", _bars(scene.bars)]
    if scene.room:
        free = max(0, scene.room - len(scene.notes))
        parts += ["", *(Text(each, style="dim") for each in scene.notes), *[""] * free]
    title = f"[bold]{act.title}[/]"
    return Panel(
        Group(*parts),
        title=title,
        title_align="left",
        border_style="dim",
        width=_WIDTH,
        padding=(1, 2),
    )


def _figures(figures: tuple[Figure, ...]) -> Table:
    """Numbers in a row, their names below."""
    from rich.table import Table

    table = Table.grid(padding=(0, 3))
    table.add_row(*(f"[{_STYLES[each.tone]}]{each.value}[/]" for each in figures))
    table.add_row(*(f"[dim]{each.label}[/]" for each in figures))
    return table


def _bars(bars: tuple[Bar, ...]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(no_wrap=True)
    for each in bars:
        full = round(_BAR * min(1.0, max(0.0, each.share)))
        bar = f"[{_STYLES[each.tone]}]{'━' * full}[/][dim]{'─' * (_BAR - full)}[/]"
        table.add_row(each.label, bar, f"[dim]{each.text}[/]")
    return table


def _line(scene: Scene) -> str:
    """The figures in one line, and what happened last."""
    told = "  ".join(f"{each.label} {each.value}" for each in scene.figures)
    return f"{told}  | {scene.notes[-1].strip()}" if scene.notes else told


def _mark(act: Act) -> str:
    return "ok  " if act.well() else "FAIL"
