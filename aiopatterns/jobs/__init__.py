"""Work that survives a process: typed jobs, and the workers that run them."""

from __future__ import annotations

from aiopatterns.core.errors import Reject, RetryLater
from aiopatterns.jobs.context import Context
from aiopatterns.jobs.envelope import Envelope, Envelopes, ErrorRecord
from aiopatterns.jobs.handle import Handle, JobStatus
from aiopatterns.jobs.job import Job, UnsentJob
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.options import JobOptions
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.unique import Unique

__all__ = [
    "Context",
    "Envelope",
    "Envelopes",
    "ErrorRecord",
    "Handle",
    "Job",
    "JobOptions",
    "JobQueue",
    "JobStatus",
    "Limits",
    "Reject",
    "RetryLater",
    "Unique",
    "UnsentJob",
]
