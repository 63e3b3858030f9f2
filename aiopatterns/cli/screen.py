"""What one sees while the main job runs: a live screen on a terminal, plain lines elsewhere.

Both views only read snapshots, ten times a second, so the work costs the same with and without
them. The live one needs the ``cli`` extra (rich); without it a terminal gets plain lines as well,
the first of which says how to get the other.
"""

from __future__ import annotations

import sys
from collections import deque
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, final

from aiopatterns.core.clock import sleep
from aiopatterns.processor import units
from aiopatterns.processor.progress import StageState

if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import Group
    from rich.table import Table

    from aiopatterns.processor.progress import Snapshot, StageSnapshot
    from aiopatterns.processor.system import DataProcessor

__all__ = ["LiveView", "NoView", "PlainView", "View", "view_for"]

_REFRESH: Final = 0.1
_HISTORY: Final = 60
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_BAR: Final = 28
_STYLES: Final = ("dodger_blue1", "spring_green3", "orange1", "medium_purple1")
_MARKS: Final = MappingProxyType(
    {
        StageState.WAITING: "[dim]·[/]",
        StageState.RUNNING: "[bold]●[/]",
        StageState.DONE: "[green]✔[/]",
        StageState.FAILED: "[red]✘[/]",
    }
)


class View(Protocol):
    """Somebody who watches a run."""

    async def follow(self, processor: DataProcessor) -> None:
        """Show how far it is, until cancelled."""


def view_for(*, json: bool) -> View:
    """Choose the view: live where somebody looks, plain lines elsewhere, none beside JSON.

    Args:
        json: Whether standard output is for the result alone.
    """
    stream = sys.stderr if json else sys.stdout
    if stream.isatty() and find_spec("rich") is not None:
        return LiveView(stream)
    if json:
        return NoView()
    hint = "for a live screen: pip install 'aiopatterns[cli]'" if stream.isatty() else None
    return PlainView(stream, hint=hint)


@final
class NoView:
    """Shows nothing."""

    __slots__ = ()

    async def follow(self, processor: DataProcessor) -> None:
        """Return at once."""


@final
class PlainView:
    """One line when a stage begins and one when it ends.

    Args:
        stream: Where the lines go.
        hint: A line to begin with.
    """

    __slots__ = ("_hint", "_stream", "_told")

    def __init__(self, stream: TextIO, *, hint: str | None = None) -> None:
        self._stream = stream
        self._hint = hint
        self._told: set[tuple[str, StageState]] = set()

    async def follow(self, processor: DataProcessor) -> None:
        """Print until cancelled, and then what is still to be told."""
        if self._hint is not None:
            print(self._hint, file=self._stream, flush=True)
        try:
            while True:
                self._tell(processor.progress.snapshot())
                await sleep(_REFRESH)
        finally:
            self._tell(processor.progress.snapshot())

    def _tell(self, snapshot: Snapshot) -> None:
        for each in snapshot.stages:
            if each.state is StageState.WAITING or (each.name, each.state) in self._told:
                continue
            self._told.add((each.name, each.state))
            what = "begins" if each.state is StageState.RUNNING else _ended(each)
            print(
                f"{each.start or 0:7.2f} s  {each.name:<11} {what}", file=self._stream, flush=True
            )


def _ended(stage: StageSnapshot) -> str:
    """What a stage has done."""
    if stage.state is StageState.FAILED:
        return f"failed after {units.seconds(stage.elapsed)}"
    work = f"{units.count(stage.files)} files, {units.size(stage.size)}, " if stage.total else ""
    return f"done: {work}{units.seconds(stage.elapsed)}"


@final
class LiveView:
    """A screen that moves: stages, throughput, queue and workers. Needs the ``cli`` extra.

    Args:
        stream: A terminal.
    """

    __slots__ = ("_before", "_rates", "_stream")

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rates: deque[float] = deque(maxlen=_HISTORY)
        self._before = (0.0, 0)

    async def follow(self, processor: DataProcessor) -> None:
        """Show until cancelled; the last picture stays on the screen."""
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream)
        with Live(console=console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(self.picture(processor), refresh=True)
                    await sleep(_REFRESH)
            finally:
                live.update(self.picture(processor), refresh=True)

    def picture(self, processor: DataProcessor) -> Group:
        """Draw the figures of this moment."""
        from rich.console import Group
        from rich.text import Text

        snapshot = processor.progress.snapshot()
        self._measure(snapshot)
        title = Text(f"{processor.corpus.title}  ", style="bold")
        title.append(units.seconds(snapshot.elapsed), style="dim")
        rate = Text("throughput  ", style="dim")
        rate.append(_spark(self._rates), style="dodger_blue1")
        rate.append(f"  {units.size(self._rates[-1])}/s", style="dim")
        return Group(title, _stages(snapshot), rate, _workers(snapshot))

    def _measure(self, snapshot: Snapshot) -> None:
        """Note the bytes a second since the last picture."""
        at, size = snapshot.elapsed, sum(each.size for each in snapshot.stages)
        passed = at - self._before[0]
        if passed > 0:
            self._rates.append(max(0.0, (size - self._before[1]) / passed))
        elif not self._rates:
            self._rates.append(0.0)
        self._before = at, size


def _stages(snapshot: Snapshot) -> Table:
    """A row for each stage."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    heads = ("", "stage", "", "files", "throughput", "queued", "running", "p50")
    for number in range(len(heads)):
        table.add_column(justify="left" if number < 3 else "right")
    table.add_row(*(f"[dim]{each}[/]" for each in heads))
    for each, style in zip(snapshot.stages, _STYLES, strict=True):
        share = each.done / each.total if each.total else float(each.state is StageState.DONE)
        full = round(_BAR * share)
        table.add_row(
            _MARKS[each.state],
            each.name,
            f"[{style}]{'━' * full}[/][dim]{'─' * (_BAR - full)}[/]",
            units.count(each.files),
            f"{units.size(each.throughput)}/s" if each.size else "",
            units.count(each.queued) if each.total else "",
            units.count(each.running) if each.total else "",
            units.seconds(each.p50) if each.done else "",
        )
    return table


def _workers(snapshot: Snapshot) -> Table:
    """How busy each worker was."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for lane, seconds in snapshot.lanes:
        share = min(1.0, seconds / max(snapshot.elapsed, 1e-9))
        full = round(_BAR * share)
        bar = f"[cyan]{'━' * full}[/][dim]{'─' * (_BAR - full)}[/]"
        table.add_row(f"[dim]{lane}[/]", bar, f"[dim]busy {share:.0%}[/]")
    return table


def _spark(values: deque[float]) -> str:
    """Draw values as a line of blocks."""
    highest = max(values) or 1.0
    return "".join(_BLOCKS[round(each / highest * (len(_BLOCKS) - 1))] for each in values)
