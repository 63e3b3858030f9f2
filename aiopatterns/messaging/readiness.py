"""Readiness: what the checks of a replica say, told to the registry as long as it serves.

::

    checker  --ready-->    registered as ready       gets calls
             --not yet-->  registered as starting    is left out of the ready ones
             --no more-->

So callers that look into the registry leave out a replica whose database is away, and come back
to it when its checks say so. The broker does not ask: live messages still go to all replicas.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from anyio import move_on_after

from aiopatterns.core.errors import ClosedError
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from anyio import Event

    from aiopatterns.cluster.health import HealthChecker
    from aiopatterns.cluster.registration import Registration, State

__all__ = ["LOOK", "follow", "standing"]

#: Seconds after which the checks are looked at if none has changed: one may have been removed.
LOOK: Final = 1.0


def standing(checker: HealthChecker | None) -> State:
    """Return as what a replica with these checks is to be registered."""
    return "ready" if checker is None or checker.report("readiness").ok else "starting"


async def follow(checker: HealthChecker, registration: Registration, stopping: Event) -> None:
    """Tell the registry what the checks say until ``stopping`` is set or the id is lost.

    Args:
        checker: The checks of this replica.
        registration: Its registration; it has begun.
        stopping: When it is not to be told any more: the replica leaves.

    Cancellation: what was told last stays.
    """
    changed = Waiters()
    with checker.on_change(lambda _: changed.wake_all()), suppress(ClosedError):
        while not stopping.is_set():
            state = standing(checker)
            if registration.state.value != state:
                await registration.set_state(state)
                continue
            with move_on_after(LOOK):
                await changed.wait()
