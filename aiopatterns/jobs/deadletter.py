"""Dead letters: jobs that failed for good, kept to be looked at, and sent again or removed.

A queue keeps the 10,000 newest, for seven days at most. A letter whose bytes cannot be read (of
another codec, another key, or not from here at all) is listed as well, without a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from aiopatterns.core.errors import CodecError

if TYPE_CHECKING:
    from aiopatterns.backends.queue import StoredJob
    from aiopatterns.jobs.envelope import Envelopes, ErrorRecord

__all__ = ["DeadLetter", "read_letter"]


@final
@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that failed for good.

    Attributes:
        job_id: Its id; ``jobs.requeue([...])`` takes it.
        name: The job's name; empty if its bytes cannot be read.
        args: Positional arguments, as the codec gives them.
        kwargs: Keyword arguments, likewise.
        attempts: How often it was started.
        error: The error of the last attempt.
        died_at: The server's time at which it died, in seconds since 1970.
    """

    job_id: str
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    attempts: int
    error: ErrorRecord
    died_at: float


def read_letter(stored: StoredJob, envelopes: Envelopes) -> DeadLetter:
    """Return a stored dead letter as users see it."""
    name, args, kwargs = "", list[Any](), dict[str, Any]()
    try:
        envelope = envelopes.decode(stored.body)
    except CodecError:
        pass
    else:
        name, args, kwargs = envelope.name, envelope.args, envelope.kwargs
    error = envelopes.read_error(stored.error)
    return DeadLetter(stored.id, name, args, kwargs, stored.attempts, error, stored.at)
