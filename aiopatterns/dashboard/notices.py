"""Notices: the lines of the event log, told from what has changed between two looks.

What happens to each of a thousand jobs a second is no log for eyes, and would cost the workers
something. What a person wants to know is: who came, who went, what was paused, what has died. The
events that processes forward (see :mod:`aiopatterns.dashboard.publisher`) come in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiopatterns.dashboard.overview import Overview, QueueView

__all__ = ["LOG", "Level", "Notice", "told"]

#: The channel on which processes forward their events.
LOG: Final = "statistics:log"

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


@final
class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log.

    Attributes:
        at: When, in seconds since 1970.
        level: How bad it is.
        event: A dotted name.
        text: What has happened, for a person.
        source: Where it comes from: a process, a queue.
    """

    at: float
    level: Level
    event: str
    text: str
    source: str


def told(before: Overview | None, now: Overview) -> list[Notice]:
    """Return what has changed; the first look tells nothing. O(size of both)."""
    if before is None:
        return []
    return [*_workers(before, now), *_queues(before, now), *_states(before, now)]


def _workers(before: Overview, now: Overview) -> Iterator[Notice]:
    old = {each.number: each for each in before.workers}
    new = {each.number: each for each in now.workers}
    for number in new.keys() - old.keys():
        one = new[number]
        where = f"{one.host} {one.pid}"
        yield _line(now, "info", "worker.joined", f"worker {one.name} has joined", where)
    for number in old.keys() - new.keys():
        one = old[number]
        where = f"{one.host} {one.pid}"
        yield _line(now, "warning", "worker.left", f"worker {one.name} has gone", where)


def _queues(before: Overview, now: Overview) -> Iterator[Notice]:
    old = {each.name: each for each in before.queues}
    for queue in now.queues:
        was = old.get(queue.name)
        if was is None:
            yield _line(now, "info", "queue.seen", f"queue {queue.name} was found", queue.name)
        else:
            yield from _changes(now, was, queue)


def _changes(now: Overview, was: QueueView, queue: QueueView) -> Iterator[Notice]:
    name = queue.name
    if queue.paused and not was.paused:
        yield _line(now, "warning", "queue.paused", f"queue {name} was paused", name)
    if was.paused and not queue.paused:
        yield _line(now, "info", "queue.resumed", f"queue {name} goes on", name)
    if (more := queue.dead - was.dead) > 0:
        text = f"{more} more dead letters in queue {name}, {queue.dead} in all"
        yield _line(now, "error", "queue.dead_letters", text, name)
    if was.workers and not queue.workers:
        yield _line(now, "error", "queue.deserted", f"nobody works for queue {name}", name)


def _states(before: Overview, now: Overview) -> Iterator[Notice]:
    """Tell of owners whose state is another one, such as breakers."""
    old = {(each.kind, each.number): _state(each.figures) for each in before.owners}
    for each in now.owners:
        was, state = old.get((each.kind, each.number)), _state(each.figures)
        if was is not None and state is not None and was != state:
            level: Level = "warning" if state == "open" else "info"
            text = f"{each.kind} {each.name}: {was} -> {state}"
            where = f"{each.host} {each.pid}"
            yield _line(now, level, f"{each.kind}.{state}", text, where)


def _state(figures: dict[str, Any]) -> str | None:
    state: object = figures.get("state")
    return state if isinstance(state, str) else None


def _line(now: Overview, level: Level, event: str, text: str, source: str) -> Notice:
    return Notice(at=now.at, level=level, event=event, text=text, source=source)
