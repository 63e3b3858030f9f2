"""aiopatterns behind the common contract: the same program as for the peers, run by our Python.

Nothing is tuned: ``concurrency`` is what every contender gets, the rest are the defaults, results,
retries and leases among them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

import contract

from aiopatterns.jobs import JobQueue, Worker

jobs = JobQueue("bench", contract.URL)


@jobs.job(name="noop")
async def noop(key: str) -> int:
    return await contract.noop(key)


@jobs.job(name="work")
async def work(key: str) -> int:
    return await contract.work(key)


@jobs.job(name="probe")
async def probe(key: str) -> int:
    return await contract.probe(key)


TASKS = {"noop": noop, "work": work, "probe": probe}
