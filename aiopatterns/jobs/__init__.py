"""Work that survives a process: typed jobs, and the workers that run them."""

from __future__ import annotations

from aiopatterns.core.errors import Reject, RetryLater
from aiopatterns.jobs.bulk import JobFilter
from aiopatterns.jobs.context import Context
from aiopatterns.jobs.deadletter import DeadLetter
from aiopatterns.jobs.envelope import Envelope, Envelopes, ErrorRecord
from aiopatterns.jobs.events import JobEvent, JobEvents, JobProgress
from aiopatterns.jobs.handle import Handle, JobStatus
from aiopatterns.jobs.job import Job, UnsentJob
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.options import JobOptions
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.schedule import Schedule
from aiopatterns.jobs.statistics import JobStatistics
from aiopatterns.jobs.unique import Unique

__all__ = [
    "Context",
    "DeadLetter",
    "Envelope",
    "Envelopes",
    "ErrorRecord",
    "Handle",
    "Job",
    "JobEvent",
    "JobEvents",
    "JobFilter",
    "JobOptions",
    "JobProgress",
    "JobQueue",
    "JobStatistics",
    "JobStatus",
    "Limits",
    "Reject",
    "RetryLater",
    "Schedule",
    "Unique",
    "UnsentJob",
]
