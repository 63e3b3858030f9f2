"""Plots as inline SVG: bars, distributions, a Gantt chart, a filled line, a shared bar.

Every function returns one ``<svg>`` element as text. Colours are CSS classes (``tone-1`` to
``tone-4``, ``ink``, ``faint``), so that the page decides about dark and light. Widths are small,
360 units, 960 for the Gantt chart, because the page scales a plot to its card: on a phone a unit is a pixel, and
labels stay readable. A mark's exact figures are in its ``<title>``, which browsers show on
hover and screen readers read.

Guarantees: all text is escaped; a plot of nothing is an empty string.
"""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING, Final, NamedTuple

from aiopatterns.processor import units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aiopatterns.processor.progress import Sample, Span, StageSnapshot

__all__ = ["Bar", "bars", "distributions", "gantt", "queue", "share"]

_WIDTH: Final = 360
_ROW: Final = 20
_LABEL: Final = 104
_VALUE: Final = 64
_BINS: Final = 28
_WIDE: Final = 960
_LANE: Final = 26
_LONGEST_LABEL: Final = 15


class Bar(NamedTuple):
    """One bar: its label, its length, what is written at its end, and its colour class."""

    label: str
    value: float
    text: str
    tone: str = "tone-1"


def bars(rows: Sequence[Bar], *, label: str) -> str:
    """Draw horizontal bars from a common baseline, each with its value at the end.

    Args:
        rows: From top to bottom.
        label: What the plot shows, for those who cannot see it.
    """
    longest = max((each.value for each in rows), default=0)
    if not longest:
        return ""
    room = _WIDTH - _LABEL - _VALUE
    marks: list[str] = []
    for number, each in enumerate(rows):
        y = number * _ROW
        width = max(1.5, room * each.value / longest)
        marks.append(
            f"<g><title>{escape(each.label)}: {escape(each.text)}</title>"
            f'<text class="label" x="{_LABEL - 6}" y="{y + 14}">{escape(_cut(each.label))}</text>'
            f"{_rounded(_LABEL, y + 3, width, _ROW - 6, each.tone)}"
            f'<text class="value" x="{_LABEL + width + 5:.1f}" y="{y + 14}">'
            f"{escape(each.text)}</text></g>"
        )
    axis = f'<line class="axis" x1="{_LABEL}" x2="{_LABEL}" y1="0" y2="{len(rows) * _ROW}"/>'
    return _svg(_WIDTH, len(rows) * _ROW, label, [axis, *marks])


def distributions(
    values: Mapping[str, Sequence[float]], tones: Mapping[str, str], *, label: str
) -> str:
    """Draw one histogram a row over a common logarithmic axis of seconds.

    Args:
        values: Seconds by row; rows without values are left out.
        tones: Colour class by row.
        label: What the plot shows.
    """
    rows = {name: sorted(each) for name, each in values.items() if each}
    if not rows:
        return ""
    low = min(max(each[0], 1e-6) for each in rows.values())
    high = max(max(each[-1], 1e-6) for each in rows.values())
    first, last = log10(low) - 0.08, log10(high) + 0.08

    def place(value: float) -> float:
        return (log10(max(value, 1e-6)) - first) / (last - first)

    parts: list[str] = []
    for number, (name, found) in enumerate(rows.items()):
        parts += _histogram(name, found, number * 74, tones[name], place)
    base = len(rows) * 74
    ticks = [low * (high / low) ** (step / 3) for step in range(4)]
    for each in ticks if high > low * 1.01 else [low]:
        x = 8 + (_WIDTH - 16) * place(each)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{base + 12}">{units.seconds(each)}</text>')
    return _svg(_WIDTH, base + 18, label, parts)


def _histogram(
    name: str, values: Sequence[float], top: int, tone: str, place: Callable[[float], float]
) -> list[str]:
    """One row of :func:`distributions`: its title, its columns, its baseline and median."""
    counts = [0] * _BINS
    for each in values:
        counts[min(_BINS - 1, max(0, int(place(each) * _BINS)))] += 1
    room, step, base = 40, (_WIDTH - 16) / _BINS, top + 66
    middle, late = values[len(values) // 2], values[min(len(values) - 1, len(values) * 95 // 100)]
    figures = f"p50 {units.seconds(middle)} · p95 {units.seconds(late)} · {len(values)} tasks"
    parts = [
        f'<text class="title" x="8" y="{top + 14}">{escape(name)}</text>',
        f'<text class="value end" x="{_WIDTH - 8}" y="{top + 14}">{figures}</text>',
    ]
    for number, each in enumerate(counts):
        if each:
            height = max(2.0, room * each / max(counts))
            x = 8 + number * step + 1
            parts.append(
                f'<g><title>{each} tasks</title><rect class="{tone}" x="{x:.1f}" rx="1.5"'
                f' y="{base - height:.1f}" width="{step - 2:.1f}" height="{height:.1f}"/></g>'
            )
    x = 8 + (_WIDTH - 16) * place(middle)
    return [
        *parts,
        f'<line class="axis" x1="8" x2="{_WIDTH - 8}" y1="{base}" y2="{base}"/>',
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top + 22}" y2="{base}"/>',
    ]


def gantt(
    spans: Sequence[Span], stages: Sequence[StageSnapshot], elapsed: float, tones: Mapping[str, str]
) -> str:
    """Draw who worked when on what: a row for each process and thread, a mark for each task.

    Args:
        spans: The tasks that were done.
        stages: The stages, drawn as a band above.
        elapsed: Seconds of the whole run.
        tones: Colour class by stage.
    """
    if not spans:
        return ""
    lanes = sorted({each.lane for each in spans}, key=lambda lane: (lane[0] != "t", lane))
    rows = {lane: _LANE * (number + 1) for number, lane in enumerate(lanes)}
    scale = (_WIDE - 84) / max(elapsed, 1e-9)
    height = _LANE * (len(lanes) + 1)
    parts = _time_axis(elapsed, scale, height)
    for stage in stages:
        if stage.start is not None:
            end = elapsed if stage.end is None else stage.end
            tone = tones[stage.name]
            parts.append(_slot(stage.name, stage.start, end, 4, tone, scale, thin=True))
    parts.append(f'<text class="label" x="74" y="{_LANE / 2 + 4}">stages</text>')
    for lane, y in rows.items():
        parts.append(f'<text class="label" x="74" y="{y + 17}">{escape(lane)}</text>')
    for each in spans:
        name = f"{each.stage} {each.task}: {each.files} files, {units.size(each.size)}"
        y = rows[each.lane] + 4
        parts.append(_slot(name, each.start, each.end, y, tones[each.stage], scale, thin=False))
    return _svg(_WIDE, height + 20, "Tasks of each worker over time", parts)


def _slot(
    name: str, start: float, end: float, y: float, tone: str, scale: float, *, thin: bool
) -> str:
    """One mark of the Gantt chart; a hair's gap keeps neighbours apart."""
    width = max(0.8, (end - start) * scale - 0.8)
    tall, place = (8, y + 5) if thin else (_LANE - 8, y)
    return (
        f"<g><title>{escape(name)}, {units.seconds(end - start)}</title>"
        f'<rect class="{tone}" x="{80 + start * scale:.2f}" y="{place}" width="{width:.2f}"'
        f' height="{tall}" rx="{min(2.0, width / 2):.2f}"/></g>'
    )


def _time_axis(elapsed: float, scale: float, height: float) -> list[str]:
    """Grid lines at round seconds, with their labels below."""
    step = 10.0 ** int(log10(max(elapsed, 1e-6)) - (elapsed < 1))
    step = next(
        step * factor for factor in (0.1, 0.2, 0.5, 1, 2, 5) if elapsed / step / factor <= 8
    )
    parts: list[str] = []
    for number in range(int(elapsed / step) + 1):
        x = 80 + number * step * scale
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>'
            f'<text class="tick" x="{x:.1f}" y="{height + 14}">{number * step:.3g} s</text>'
        )
    return parts


def queue(samples: Sequence[Sample], elapsed: float, tones: Mapping[str, str]) -> str:
    """Draw how many tasks waited over time, stage by stage, as filled steps.

    Args:
        samples: In order of time.
        elapsed: Seconds of the whole run.
        tones: Colour class by stage.
    """
    deepest = max((each.queued for each in samples), default=0)
    if not deepest:
        return ""
    scale, room, base = (_WIDTH - 40) / max(elapsed, 1e-9), 110, 126
    parts: list[str] = []
    for share_of in (0.5, 1.0):
        y = base - room * share_of
        parts.append(
            f'<line class="grid" x1="32" x2="{_WIDTH - 8}" y1="{y}" y2="{y}"/>'
            f'<text class="label" x="28" y="{y + 4}">{deepest * share_of:.0f}</text>'
        )
    for stage in dict.fromkeys(each.stage for each in samples):
        points = [each for each in samples if each.stage == stage]
        path = [f"M{32 + points[0].at * scale:.1f} {base}"]
        path += [
            f"V{base - room * each.queued / deepest:.1f}H{32 + each.at * scale:.1f}"
            for each in points
        ]
        parts.append(
            f'<g><title>{escape(stage)}</title><path class="area {tones[stage]}"'
            f' d="{"".join(path)}V{base}Z"/></g>'
        )
    parts.append(f'<line class="axis" x1="32" x2="{_WIDTH - 8}" y1="{base}" y2="{base}"/>')
    parts += [
        f'<text class="tick {place}" x="{32 + elapsed * each * scale:.1f}" y="{base + 14}">'
        f"{units.seconds(elapsed * each) if each else '0'}</text>"
        for each, place in ((0, ""), (0.5, ""), (1, "last"))
    ]
    return _svg(_WIDTH, base + 20, "Tasks that waited, over time", parts)


def share(rows: Iterable[Bar], *, label: str) -> str:
    """Draw parts of a whole as one bar with a legend below.

    Args:
        rows: The parts; those without length are left out.
        label: What the plot shows.
    """
    found = [each for each in rows if each.value > 0]
    whole = sum(each.value for each in found)
    parts: list[str] = []
    x = 0.0
    for number, each in enumerate(found):
        width = _WIDTH * each.value / whole
        column, line = number % 2 * (_WIDTH / 2), 44 + number // 2 * 20
        parts.append(
            f"<g><title>{escape(each.label)}: {escape(each.text)}</title>"
            f'<rect class="{each.tone}" x="{x:.1f}" y="0" width="{max(1.0, width - 2):.1f}"'
            f' height="22" rx="3"/></g>'
            f'<rect class="{each.tone}" x="{column}" y="{line - 9}" width="10" height="10" rx="2"/>'
            f'<text class="title" x="{column + 16}" y="{line}">{escape(each.label)}</text>'
            f'<text class="value end" x="{column + 160}" y="{line}">{escape(each.text)}</text>'
        )
        x += width
    return _svg(_WIDTH, 32 + (len(found) + 1) // 2 * 20, label, parts) if found else ""


def _rounded(x: float, y: float, width: float, height: float, tone: str) -> str:
    """A bar that is square at its baseline and round at its end."""
    round_ = min(3.0, width)
    return (
        f'<path class="{tone}" d="M{x} {y}h{width - round_:.1f}q{round_:.1f} 0 {round_:.1f}'
        f" {round_:.1f}v{height - 2 * round_:.1f}q0 {round_:.1f} {-round_:.1f} {round_:.1f}"
        f'h{round_ - width:.1f}z"/>'
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


def _svg(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
