"""The result as one HTML page that needs nothing else.

The page carries its style and its plots (inline SVG) and loads nothing: no script, no font, no
image. It follows the reader's choice of dark or light, and reads on a phone. All text that comes
from files (names, words) is escaped, and a content security policy forbids everything but the
page's own style, should one ever slip through.

Guarantees: well-formed HTML; under 1 MB whatever the corpus, because every list has a bound.
"""

from __future__ import annotations

from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aiopatterns.processor import charts, units
from aiopatterns.processor.charts import Bar
from aiopatterns.processor.page import page
from aiopatterns.processor.progress import HERE, StageState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiopatterns.processor.analysis import Analysis, Term
    from aiopatterns.processor.progress import Progress, Snapshot, StageSnapshot

__all__ = ["render_report"]

TONES: Final = MappingProxyType(
    {"ingestion": "tone-1", "processing": "tone-2", "analysis": "tone-3", "report": "tone-4"}
)
_BARS: Final = 20
_PACKAGES: Final = 24
_LISTED: Final = 30
_OUTLIERS: Final = 6


def render_report(analysis: Analysis, progress: Progress, *, title: str, footer: str = "") -> str:
    """Return the page.

    Args:
        analysis: The result.
        progress: The record of the run.
        title: What was read.
        footer: A line about versions and settings.

    Complexity: linear in the number of tasks; some 20 ms for the standard library.
    """
    snapshot = progress.snapshot()
    content = [
        _tiles(analysis, snapshot),
        _timeline(progress, snapshot),
        _work(progress, snapshot),
        _vocabulary(analysis),
        _packages(analysis),
        _findings(analysis),
    ]
    found = analysis.catalogue
    subtitle = (
        f"{units.count(analysis.files)} files, {units.size(analysis.size)} in "
        f"{units.count(len(analysis.packages))} packages; {len(found.duplicates)} groups of "
        f"duplicates, {len(found.undecodable)} undecodable files"
    )
    return page(
        title=units.printable(title),
        subtitle=subtitle,
        content="\n".join(content),
        footer=footer,
    )


def _tiles(analysis: Analysis, snapshot: Snapshot) -> str:
    """The figures that matter most."""
    tiles = [
        ("files", units.count(analysis.files)),
        ("lines", units.count(analysis.lines)),
        ("words", units.short(analysis.word_count)),
        ("different words", units.count(len(analysis.words))),
        ("names in code", units.short(analysis.name_count)),
        ("wall time", units.seconds(snapshot.elapsed)),
    ]
    inner = "".join(
        f"<div class=tile><b>{value}</b><span>{name}</span></div>" for name, value in tiles
    )
    return f"<div class=tiles>{inner}</div>"


def _timeline(progress: Progress, snapshot: Snapshot) -> str:
    """Who worked when on what."""
    plot = charts.gantt(progress.spans, snapshot.stages, snapshot.elapsed, TONES)
    busy = ", ".join(
        f"{lane} busy {units.seconds(seconds)} ({seconds / max(snapshot.elapsed, 1e-9):.0%})"
        for lane, seconds in snapshot.lanes
    )
    legend = "".join(
        f'<li><i class="{TONES[each.name]}"></i>{each.name}</li>' for each in snapshot.stages
    )
    body = f"<ul class=legend>{legend}</ul><div class=scroll>{plot}</div>"
    return _card("Tasks and workers", busy, body)


def _work(progress: Progress, snapshot: Snapshot) -> str:
    """The stages in figures and plots."""
    worked = [each for each in snapshot.stages if each.total]
    rates = [
        Bar(each.name, each.throughput, f"{units.size(each.throughput)}/s", TONES[each.name])
        for each in worked
    ]
    spans = [each for each in progress.spans if each.task != HERE]
    seconds = {
        each.name: [span.end - span.start for span in spans if span.stage == each.name]
        for each in worked
    }
    cards = [
        _card(
            "Stage throughput",
            "bytes of files in a second, over the whole stage",
            charts.bars(rates, label="Throughput of each stage") + _stage_table(snapshot.stages),
        ),
        _card(
            "Latency of tasks",
            "seconds of a task, on a logarithmic axis; the dashes mark the median",
            charts.distributions(seconds, TONES, label="Distribution of task latencies"),
        ),
        _card(
            "Queue depth",
            "tasks that waited for a worker",
            charts.queue(progress.samples, snapshot.elapsed, TONES),
        ),
    ]
    return _cards(cards)


def _stage_table(stages: Sequence[StageSnapshot]) -> str:
    rows = [
        [
            f'<i class="{TONES[each.name]}"></i>{each.name}',
            units.count(each.total),
            units.seconds(each.elapsed),
            units.seconds(each.p50),
            units.seconds(each.p99),
        ]
        for each in stages
        if each.state is StageState.DONE
    ]
    return _table(["stage", "tasks", "time", "p50", "p99"], rows, words=1)


def _vocabulary(analysis: Analysis) -> str:
    """Top words, top names, and what the text is made of."""
    volume = analysis.volume
    parts = [
        Bar(name, value, f"{value / max(sum(volume), 1):.1%}", f"tone-{tone}")
        for tone, (name, value) in enumerate(volume._asdict().items(), 1)
    ]
    cards = [
        _card(
            "Top words",
            f"of {units.count(analysis.word_count)}, runs of letters in lower case",
            charts.bars(_term_bars(analysis.top_words, "tone-1"), label="Most frequent words"),
        ),
        _card(
            "Top names in code",
            f"of {units.count(analysis.name_count)}, without keywords, strings and comments",
            charts.bars(_term_bars(analysis.top_names, "tone-2"), label="Most frequent names"),
        ),
        _card(
            "What it is made of",
            "characters by kind",
            charts.share(parts, label="Characters by kind") + _outlier_table(analysis),
        ),
    ]
    return _cards(cards)


def _term_bars(terms: Sequence[Term], tone: str) -> list[Bar]:
    return [
        Bar(units.cut(each.text), each.number, units.count(each.number), tone)
        for each in terms[:_BARS]
    ]


def _outlier_table(analysis: Analysis) -> str:
    rows = [
        [_path(each.path), f"{each.what} {units.size(each.value)}"]
        for each in analysis.outliers[:_OUTLIERS]
    ]
    if not rows:
        return ""
    head = f"<h2 class=more>Outliers</h2><p class=hint>the farthest of {len(analysis.outliers)}, by modified z-score</p>"
    return head + _table(["file", "longest line or size"], rows, words=1)


def _packages(analysis: Analysis) -> str:
    """The largest packages and what sets them apart."""
    largest = max((each.size for each in analysis.packages), default=1) or 1
    rows = [
        [
            escape(units.printable(each.name)),
            units.count(each.files),
            units.size(each.size),
            f'<span class=bar style="width:{max(1.0, 100 * each.size / largest):.1f}%"></span>',
            units.short(each.words),
            f"<span class=words>{escape(', '.join(map(units.cut, each.keywords)))}</span>",
        ]
        for each in analysis.packages[:_PACKAGES]
    ]
    hint = f"the largest {len(rows)} of {len(analysis.packages)}; key words by TF-IDF"
    table = _table(["package", "files", "size", "", "words", "key words"], rows, words=1)
    return _card("Packages and their key words", hint, f"<div class=scroll>{table}</div>")


def _findings(analysis: Analysis) -> str:
    """Duplicates and files that are no clean text."""
    found = analysis.catalogue
    groups = [" = ".join(map(_path, group[:6])) for group in found.duplicates]
    troubles = [f"{_path(each.path)}: {_path(each.reason)}" for each in analysis.troubles]
    cards = [
        _card(
            "Duplicates",
            f"{len(groups)} groups of equal files hold {units.size(found.wasted)} twice",
            _list(groups),
        ),
        _card(
            "Undecodable", "not UTF-8, read with replacement", _list(map(_path, found.undecodable))
        ),
        _card(
            "Not read",
            f"{len(found.binary)} binary, {len(troubles)} unreadable, {found.skipped} links and devices",
            _list([*troubles, *map(_path, found.binary)]),
        ),
    ]
    return _cards(cards)


def _list(rows: Iterable[str]) -> str:
    """A list that stays short however much there is."""
    found = [*rows]
    if not found:
        return "<p>none</p>"
    inner = "".join(f"<li>{each}</li>" for each in found[:_LISTED])
    rest = f"<p class=hint>and {len(found) - _LISTED} more</p>" if len(found) > _LISTED else ""
    return f"<ul class=plain>{inner}</ul>{rest}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """A table whose first ``words`` columns, and a sixth, are words; all others are figures."""
    kinds = ["path" if number < words or number > 4 else "number" for number in range(len(head))]
    titles = "".join(
        f'<th class="{kind}">{name}</th>' for kind, name in zip(kinds, head, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _path(path: str) -> str:
    return escape(units.printable(path))


def _card(title: str, hint: str, body: str) -> str:
    return f"<article class=card><h2>{title}</h2><p class=hint>{hint}</p>{body}</article>"


def _cards(cards: Iterable[str]) -> str:
    return f"<section class=cards>{''.join(cards)}</section>"
