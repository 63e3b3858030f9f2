"""The live screen of ``aiopatterns top``: the whole terminal, with a window that moves over it.

Only what has changed its place is drawn again; what is shown is text that came from other
processes, so it is put there as text, never as markup. Needs the ``cli`` extra (rich).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TextIO, final

from aiopatterns.cli.topsections import sections
from aiopatterns.core.clock import monotonic
from aiopatterns.processor.units import seconds, short

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from aiopatterns.cli.topsections import Section
    from aiopatterns.dashboard.overview import Overview

__all__ = ["Screen"]

_HISTORY: Final = 60
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_PAGE: Final = 10
_STEPS: Final = (("up", -1), ("down", 1), ("page up", -_PAGE), ("page down", _PAGE))


@final
class Screen:
    """What one sees of a fleet.

    Args:
        stream: A terminal.
    """

    __slots__ = ("_failed_at", "_live", "_offset", "_paces", "_paused", "_seen", "_why", "console")

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self.console: Console = Console(file=stream, highlight=False)
        self._live: Live | None = None
        self._seen: Overview | None = None
        self._paces: deque[float] = deque(maxlen=_HISTORY)
        self._offset = 0
        self._paused = False
        self._failed_at: float | None = None
        self._why = ""

    def __enter__(self) -> Self:
        """Take the terminal."""
        from rich.live import Live

        self._live = Live(self, console=self.console, screen=True, auto_refresh=False)
        self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back as it was."""
        assert self._live is not None
        self._live.stop()

    def show(self, seen: Overview) -> None:
        """Show a look at the fleet, unless the screen stands still."""
        self._failed_at = None
        self._paces.append(sum(each.throughput for each in seen.queues))
        if not self._paused:
            self._seen = seen
        self._draw()

    def fail(self, why: str) -> None:
        """Say that the fleet could not be seen; the last figures stay."""
        if self._failed_at is None:
            self._failed_at = monotonic()
        self._why = why
        self._draw()

    def press(self, key: str) -> None:
        """Obey a key."""
        if key == "p":
            self._paused = not self._paused
        self._offset = max(0, self._offset + dict(_STEPS).get(key, 0))
        self._draw()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the head, and what the window shows of the rest."""
        from rich.console import Group
        from rich.segment import Segment

        free = options.update(height=None)
        head = console.render_lines(Group(*self._head()), free, pad=False)
        body = console.render_lines(Group(*self._body()), free, pad=False)
        room = max(1, console.height - len(head))
        self._offset = min(self._offset, max(0, len(body) - room))
        lines = [*head, *body[self._offset : self._offset + room]][: console.height]
        for number, line in enumerate(lines):
            if number:
                yield Segment.line()
            yield from line

    # --------------------------------------------------------------------------- private core

    def _draw(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def _head(self) -> list[RenderableType]:
        from rich.text import Text

        title = Text("aiopatterns top", style="bold")
        if self._seen is not None:
            title.append(f"  {self._seen.backend}", style="dim")
        title.append("  q ends, p pauses, arrows move", style="dim")
        lines: list[RenderableType] = [title, self._pace()]
        if self._paused:
            lines.append(Text("stands still: p goes on", style="yellow"))
        if self._failed_at is not None:
            since = seconds(monotonic() - self._failed_at)
            lines.append(Text(f"nobody answers, since {since}: {self._why}", style="bold red"))
        return lines

    def _pace(self) -> Text:
        """Draw the jobs a second of the last minute."""
        from rich.text import Text

        highest = max(self._paces, default=0.0) or 1.0
        line = Text("jobs/s  ", style="dim")
        blocks = (_BLOCKS[round(each / highest * (len(_BLOCKS) - 1))] for each in self._paces)
        line.append("".join(blocks), style="dodger_blue1")
        return line.append(f"  {short(self._paces[-1]) if self._paces else '-'}", style="dim")

    def _body(self) -> list[RenderableType]:
        from rich.text import Text

        found = [] if self._seen is None else sections(self._seen)
        if self._seen is not None and not found:
            return [Text("\nnothing is published here: no worker runs over this backend")]
        return [each for section in found for each in ("", _table(section))]


def _table(section: Section) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for number, _ in enumerate(section.heads):
        table.add_column(justify="left" if number < section.left else "right", no_wrap=True)
    table.add_row(*(Text(each, style="bold dodger_blue1") for each in section.heads))
    for row in section.rows:
        table.add_row(*map(Text, row))
    return table
