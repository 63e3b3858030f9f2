"""What ``aiopatterns top`` shows of a fleet: sections of rows, as text that any terminal can show.

Names and figures come from other processes. Characters that are not printable, with which a name
could move the cursor, are replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aiopatterns.processor.units import count, printable, seconds, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aiopatterns.dashboard.overview import (
        Overview,
        OwnerView,
        QueueView,
        StreamView,
        WorkerView,
    )

__all__ = ["Section", "aligned", "sections"]

# Figures of an owner that are shown at most.
_FIGURES: Final = 6
_LONGEST: Final = 40
_STATES: Final = ("queued", "scheduled", "waiting", "running", "dead")


@final
@dataclass(frozen=True, slots=True)
class Section:
    """A table.

    Args:
        title: What its rows are.
        heads: The names of its columns.
        rows: Its rows.
        left: How many columns, the first ones, are names; the others are figures.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


def sections(seen: Overview, *, paced: bool = True) -> list[Section]:
    """Return what there is to show; a kind of which there is nothing has no section.

    Args:
        seen: The fleet.
        paced: Whether a pace is known, which takes more than one look.
    """
    queues = Section(
        "queues",
        ("queue", *_STATES, "workers", "jobs/s", "p50", "p99"),
        tuple(_queue(each, paced=paced) for each in seen.queues),
    )
    workers = Section(
        "workers",
        ("worker", "process", "age", "done", "failed", "retried", "running", "p50", "p99"),
        tuple(map(_worker, seen.workers)),
        left=2,
    )
    services = Section(
        "services",
        ("service", "instance", "address", "state", "version"),
        tuple(_services(seen)),
        left=5,
    )
    streams = Section(
        "streams", ("stream", "group", "lag", "in hand"), tuple(map(_stream, seen.streams)), left=2
    )
    owners = Section(
        "owners", ("kind", "name", "process", "figures"), tuple(map(_owner, seen.owners)), left=4
    )
    found = (queues, workers, services, streams, owners)
    return [each for each in found if each.rows]


def aligned(section: Section) -> Iterator[str]:
    """Yield a section as lines of plain text, its head first."""
    lines = (section.heads, *section.rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if number < section.left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _queue(queue: QueueView, *, paced: bool) -> tuple[str, ...]:
    return (
        _shown(queue.name) + (" (paused)" if queue.paused else ""),
        *(count(getattr(queue, each)) for each in _STATES),
        count(queue.workers),
        short(queue.throughput) if paced else "-",
        seconds(queue.p50),
        seconds(queue.p99),
    )


def _worker(worker: WorkerView) -> tuple[str, ...]:
    figures = worker.figures
    return (
        _shown(worker.name),
        f"{_shown(worker.host)}:{worker.pid}",
        _age(worker.age),
        *(_figure(figures.get(each)) for each in ("processed", "failed", "retried", "running")),
        *(_time(figures.get(each)) for each in ("p50", "p99")),
    )


def _services(seen: Overview) -> Iterator[tuple[str, ...]]:
    for service in seen.services:
        for each in service.instances:
            state = "unreadable" if each.stale else each.state
            address = f"{each.host}:{each.port}"
            yield tuple(map(_shown, (service.service, each.id, address, state, each.version)))


def _stream(stream: StreamView) -> tuple[str, ...]:
    lag, pending = count(stream.lag), count(stream.pending)
    return _shown(stream.name), _shown(stream.group), lag, pending


def _owner(owner: OwnerView) -> tuple[str, ...]:
    return (
        _shown(owner.kind),
        _shown(owner.name),
        f"{_shown(owner.host)}:{owner.pid}",
        "  ".join(_told(owner.figures)),
    )


def _told(figures: Mapping[str, object]) -> Sequence[str]:
    """Return the first figures that are single values."""
    single = (
        f"{_shown(name)} {_figure(value)}"
        for name, value in figures.items()
        if isinstance(value, (str, int, float))
    )
    return [text for text, _ in zip(single, range(_FIGURES), strict=False)]


def _figure(value: object) -> str:
    """Return a figure that somebody has published, whatever it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return f"{value:.3g}"
    return _shown(value) if isinstance(value, str) else "-"


def _time(value: object) -> str:
    return seconds(value) if isinstance(value, (int, float)) else "-"


def _age(age: float) -> str:
    """Return ``59 s``, ``12 min``, ``3.5 h`` or ``8.1 d``."""
    if age < 60:
        return f"{age:.0f} s"
    if age < 3600:
        return f"{age / 60:.0f} min"
    return f"{age / 3600:.1f} h" if age < 86_400 else f"{age / 86_400:.1f} d"


def _shown(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
