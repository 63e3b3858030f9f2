"""What a worker knows about one of its queues: the jobs, how bytes are read, state, figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from aiopatterns.jobs.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.backends.queue import Queue
    from aiopatterns.jobs.envelope import Envelopes
    from aiopatterns.jobs.job import Job
    from aiopatterns.jobs.queue import JobQueue

__all__ = ["Shop"]


@final
class Shop:
    """One queue of a running worker.

    Args:
        queue: The queue.
        state: What its lifespan has yielded.
    """

    __slots__ = ("envelopes", "jobs", "lease", "ledger", "name", "state", "stores")

    def __init__(self, queue: JobQueue, state: Mapping[str, Any]) -> None:
        self.name: str = queue.name
        self.jobs: Mapping[str, Job[..., Any]] = queue.jobs
        self.envelopes: Envelopes = queue.envelopes
        self.stores: tuple[Queue, ...] = queue.stores
        self.lease: float = queue.lease
        self.state: Mapping[str, Any] = state
        self.ledger: Ledger = Ledger(queue.name)
