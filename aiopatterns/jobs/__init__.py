"""Work that survives a process: typed jobs, and the workers that run them."""

from __future__ import annotations

from aiopatterns.core.errors import Reject, RetryLater
from aiopatterns.jobs.bulk import JobFilter
from aiopatterns.jobs.child import ChildCrashed
from aiopatterns.jobs.context import Context
from aiopatterns.jobs.deadletter import DeadLetter
from aiopatterns.jobs.envelope import Envelope, Envelopes, ErrorRecord
from aiopatterns.jobs.events import JobEvent, JobEvents, JobProgress
from aiopatterns.jobs.handle import Handle, JobStatus
from aiopatterns.jobs.invocation import CallNext, Middleware
from aiopatterns.jobs.job import Job, Prepared, UnsentJob
from aiopatterns.jobs.ledger import QueueFigures, WorkerStatistics
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.options import JobOptions
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.schedule import Schedule
from aiopatterns.jobs.statistics import JobStatistics
from aiopatterns.jobs.supervisor import Supervisor, SupervisorStatistics
from aiopatterns.jobs.unique import Unique
from aiopatterns.jobs.worker import Worker
from aiopatterns.jobs.workerevents import (
    BackendRecovered,
    BackendTroubled,
    JobCancelled,
    JobDead,
    JobDone,
    JobLost,
    JobReleased,
    JobRetried,
    JobStarted,
    LoopBlocked,
)

__all__ = [
    "BackendRecovered",
    "BackendTroubled",
    "CallNext",
    "ChildCrashed",
    "Context",
    "DeadLetter",
    "Envelope",
    "Envelopes",
    "ErrorRecord",
    "Handle",
    "Job",
    "JobCancelled",
    "JobDead",
    "JobDone",
    "JobEvent",
    "JobEvents",
    "JobFilter",
    "JobLost",
    "JobOptions",
    "JobProgress",
    "JobQueue",
    "JobReleased",
    "JobRetried",
    "JobStarted",
    "JobStatistics",
    "JobStatus",
    "Limits",
    "LoopBlocked",
    "Middleware",
    "Prepared",
    "QueueFigures",
    "Reject",
    "RetryLater",
    "Schedule",
    "Supervisor",
    "SupervisorStatistics",
    "Unique",
    "UnsentJob",
    "Worker",
    "WorkerStatistics",
]
