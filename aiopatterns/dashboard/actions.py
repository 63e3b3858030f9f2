"""Actions: what a page may change, if the dashboard was told that it may.

======== ================================ ======================================
action   body                             what happens
======== ================================ ======================================
requeue  queue, ids or all                dead letters are queued again
cancel   queue, ids                       jobs end, or are asked to
purge    queue, ids or all                dead letters are removed
pause    queue                            nothing is given out any more
resume   queue                            it is again
======== ================================ ======================================

Each is told as an event. All may be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias, final

import msgspec

from aiopatterns.backends.queue import MAX_BATCH
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.dashboard.events import DashboardActed
from aiopatterns.jobs.ids import partition_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiopatterns.backends.queue import Queue
    from aiopatterns.dashboard.queues import KnownQueue

__all__ = ["ACTIONS", "Order", "act"]


@final
class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page asks for.

    Attributes:
        queue: The queue.
        ids: Jobs, 500 at most.
        all: Instead of ids: all dead letters.
    """

    queue: str
    ids: list[str] = []
    all: bool = False


async def act(action: str, order: Order, queue: KnownQueue) -> int:
    """Do what was asked for; return how many jobs that has changed.

    Args:
        action: One of :data:`ACTIONS`.
        order: For which jobs.
        queue: It is that of the order.

    Raises:
        ValueError: The order does not say for which jobs, or says it where that makes no sense.
        BackendError: The backend does not answer; some may have been changed.
    """
    changed = await ACTIONS[action](order, queue)
    if listening():
        emit(DashboardActed(action=action, queue=queue.name, jobs=changed))
    return changed


async def _requeue(order: Order, queue: KnownQueue) -> int:
    _check(order, everything=True)
    changed = 0
    for store, ids in _split(queue, order.ids):
        changed += await store.requeue(ids)
    if order.all:
        for store in queue.stores:
            changed += await _requeue_all(store)
    return changed


async def _requeue_all(store: Queue) -> int:
    """Queue all dead letters again, but none twice that dies meanwhile."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.page("dead", cursor=cursor, limit=MAX_BATCH)
        ids += [each.id for each in page.jobs]
        cursor = page.cursor
        if cursor is None:
            break
    changed = 0
    for start in range(0, len(ids), MAX_BATCH):
        changed += await store.requeue(ids[start : start + MAX_BATCH])
    return changed


async def _cancel(order: Order, queue: KnownQueue) -> int:
    _check(order, everything=False)
    changed = 0
    for store, ids in _split(queue, order.ids):
        states = await store.cancel(ids)
        changed += sum(state in {"cancelled", "running"} for state in states.values())
    return changed


async def _purge(order: Order, queue: KnownQueue) -> int:
    _check(order, everything=True)
    changed = 0
    for store, ids in _split(queue, order.ids):
        changed += await store.purge(ids)
    if order.all:
        for store in queue.stores:
            changed += await store.purge()
    return changed


async def _pause(order: Order, queue: KnownQueue) -> int:
    return await _set_paused(order, queue, paused=True)


async def _resume(order: Order, queue: KnownQueue) -> int:
    return await _set_paused(order, queue, paused=False)


async def _set_paused(order: Order, queue: KnownQueue, *, paused: bool) -> int:
    if order.ids or order.all:
        msg = "ids and all must not be given: a queue is paused as a whole"
        raise ValueError(msg)
    for store in queue.stores:
        await store.pause(paused=paused)
    return 0


Action: TypeAlias = Callable[[Order, "KnownQueue"], Awaitable[int]]
#: What can be asked for.
ACTIONS: Final[Mapping[str, Action]] = MappingProxyType(
    {
        "requeue": _requeue,
        "cancel": _cancel,
        "pause": _pause,
        "resume": _resume,
        "purge": _purge,
    }
)


def _check(order: Order, *, everything: bool) -> None:
    """Refuse an order that names no jobs, too many, or both some and all."""
    if len(order.ids) > MAX_BATCH or not all(order.ids):
        msg = f"ids must be at most {MAX_BATCH} ids, none of them empty, not {len(order.ids)}"
        raise ValueError(msg)
    if order.all and not everything:
        msg = "all must be false: name the jobs by ids"
        raise ValueError(msg)
    if bool(order.ids) == order.all:
        msg = "either ids or all must be given" if everything else "ids must be given"
        raise ValueError(msg)


def _split(queue: KnownQueue, ids: Sequence[str]) -> list[tuple[Queue, list[str]]]:
    """Return the parts that jobs may be in; an id that does not tell goes to all of them."""
    parts: dict[int, list[str]] = {}
    for each in ids:
        part = partition_of(each, len(queue.stores))
        for number in range(len(queue.stores)) if part is None else (part,):
            parts.setdefault(number, []).append(each)
    return [(queue.stores[number], found) for number, found in parts.items()]
