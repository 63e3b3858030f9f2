from __future__ import annotations

import os
import runpy

import pytest

from aiopatterns.cli import chaosjobs
from aiopatterns.cli.chaosjobs import Ledger, define
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.worker import Worker


def test_the_target_is_this_module():
    assert f"{chaosjobs.__name__}:jobs" == chaosjobs.TARGET


def test_only_a_worker_process_has_the_queue(monkeypatch, tmp_path):
    assert not hasattr(chaosjobs, "jobs")
    monkeypatch.setenv(chaosjobs.URL, "memory://")
    monkeypatch.setenv(chaosjobs.LEDGER, str(tmp_path / "ledger"))
    (queue,) = [
        each for each in runpy.run_path(chaosjobs.__file__).values() if isinstance(each, JobQueue)
    ]
    assert [*queue.jobs] == ["work"]


@pytest.mark.parametrize("who", [None, 7])
async def test_a_job_notes_its_end(tmp_path, who):
    ledger = Ledger(tmp_path / "ledger")
    queue = define("memory://", ledger.path, who=who)
    async with queue:
        work = queue.jobs["work"]
        await queue.enqueue_many([work.job(each, 0.001) for each in range(3)])
        await Worker(queue).run_until_empty()
    ledger.look()
    assert ledger.ended == {0, 1, 2}
    assert ledger.by == {who or os.getpid(): 3}
    assert ledger.twice == 0


def test_the_ledger_counts_who_comes_twice_and_waits_for_whole_lines(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    ledger.look()
    assert not ledger.ended
    ledger.path.write_bytes(b"1 5\n2 5\n1 6\n3")
    ledger.look()
    assert (ledger.ended, ledger.twice, dict(ledger.by)) == ({1, 2}, 1, {5: 2, 6: 1})
    with ledger.path.open("ab") as file:
        file.write(b"4 6\n")
    ledger.look()
    assert (ledger.ended, ledger.twice, dict(ledger.by)) == ({1, 2, 34}, 1, {5: 2, 6: 2})
