"""The result of ``aiopatterns bench`` as one HTML page that needs nothing else.

It carries its style and loads nothing, follows the reader's choice of dark or light, and reads on a
phone. Bars are drawn by the rate, on a logarithmic scale, for a read from memory and a job over a
network are three orders of magnitude apart.
"""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING, Final

from aiopatterns.processor.page import page
from aiopatterns.processor.units import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aiopatterns.cli.calibration import Measured

__all__ = ["render"]

_STYLE: Final = """
.rates { display: grid; grid-template-columns: minmax(0, 1fr) auto auto auto; gap: 4px 16px; align-items: baseline; }
.rates > * { white-space: nowrap; font-variant-numeric: tabular-nums; text-align: right; }
.rates > .what { white-space: normal; text-align: left; }
.rates > .bar { grid-column: 1 / -1; height: 6px; border-radius: 3px; background: var(--grid); margin-bottom: 6px; }
.rates > .bar > svg { height: 6px; }
.rates > .head { font-size: 13px; color: var(--faint); }
"""
# One operation a second has no bar, a hundred million the longest.
_LONGEST: Final = 8.0


def render(results: Sequence[Measured], machine: Mapping[str, str], *, effort: str) -> str:
    """Return the page.

    Args:
        results: In the order in which they are shown.
        machine: Facts by name.
        effort: How it was measured, in one sentence.
    """
    groups = dict.fromkeys(each.group for each in results)
    cards = [
        _card(group, [each for each in results if each.group == group], f"tone-{1 + number % 4}")
        for number, group in enumerate(groups)
    ]
    return page(
        title="aiopatterns on this machine",
        subtitle=", ".join(f"{name} {value}" for name, value in machine.items()),
        content="\n".join(cards),
        footer=f"{effort}; bars: operations a second, on a logarithmic scale",
        style=_STYLE,
    )


def _card(group: str, results: Sequence[Measured], tone: str) -> str:
    rows = "\n".join(row for each in results for row in _rows(each, tone))
    head = "".join(
        f'<span class="head{" what" if not number else ""}">{text}</span>'
        for number, text in enumerate(("one operation", "time", "a second", "spread"))
    )
    return (
        f'<section class="card"><h2>{escape(group)}</h2>\n'
        f'<div class="rates">{head}\n{rows}\n</div></section>'
    )


def _rows(result: Measured, tone: str) -> Iterator[str]:
    share = min(1.0, max(0.0, log10(result.rate) / _LONGEST))
    yield f'<span class="what">{escape(result.name)}</span>'
    yield f"<span>{result.time}</span><span>{short(result.rate)}</span>"
    yield f"<span>{result.spread:.0%}</span>"
    yield (
        f'<span class="bar"><svg viewBox="0 0 100 1" preserveAspectRatio="none" role="presentation">'
        f'<rect class="{tone}" width="{100 * share:.1f}" height="1"/></svg></span>'
    )
