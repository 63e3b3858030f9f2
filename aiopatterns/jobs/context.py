"""What a job's function may know about the run that it serves, and tell while it runs.

A function that wants it takes ``ctx: Context`` as its first positional parameter. It is told from
the parameter's annotation: the class :class:`Context` of this room, a subclass of it, or the base
in :mod:`aiopatterns.core`. Middleware receives it in any case.

Hops travel here: a job that is enqueued while another one runs has one more than that.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiopatterns.core.context import Context as BaseContext
from aiopatterns.core.validate import in_range

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token

__all__ = ["Context", "enter_hops", "hops_onward", "leave_hops"]

# How many jobs led to the code that runs here; None outside of jobs.
_hops: Final[ContextVar[int | None]] = ContextVar("aiopatterns_job_hops", default=None)


@dataclass(slots=True, kw_only=True)
class Context(BaseContext):
    """One attempt of one job.

    Args:
        attempt: Which attempt this is, from 1.
        deadline: When it must be over, in monotonic seconds, or None.
        correlation_id: Id that joins everything done for one request, or None.
        hops: How many jobs led to this one.
        state: What the queue's lifespan yielded.
        job_id: The job's id; for a batch that of its first job.
        name: The job's name.
        report: Takes the fractions of :meth:`progress`.
    """

    job_id: str
    name: str
    report: Callable[[float], object]

    async def progress(self, fraction: float) -> None:
        """Tell how far the job is; the newest fraction is kept until the job ends.

        Args:
            fraction: Between 0 and 1.

        Raises:
            ValueError: ``fraction`` is not between 0 and 1.

        A synchronous function calls it as ``anyio.from_thread.run(ctx.progress, 0.5)``.

        Complexity: O(1); no round trip of its own, it goes with the worker's next step.
        """
        self.report(in_range("fraction", fraction, 0.0, 1.0))


def hops_onward() -> int:
    """Return the hops of a job that is enqueued here."""
    hops = _hops.get()
    return 0 if hops is None else hops + 1


def enter_hops(hops: int) -> Token[int | None]:
    """Note that a job with ``hops`` runs here; :func:`leave_hops` takes the token."""
    return _hops.set(hops)


def leave_hops(token: Token[int | None]) -> None:
    """Undo :func:`enter_hops`."""
    _hops.reset(token)
