"""A process that synchronises is killed at every transaction, of both sides: nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from aiopatterns.data import Synchronizer
from tests.data.syncplaces import assert_equal, values
from tests.data.syncprocess import BATCH, EXPECTED, STRATEGY, stores

pytestmark = [pytest.mark.real, pytest.mark.untraced]

ROOT = Path(__file__).parents[2]
# Two passes, each with its introduction, and at least two batches that are noted on both sides.
POINTS = 3 * 2 * (1 + 2 * 2)


def killed(left: str, right: str, stride: int) -> int:
    """Let a process be killed at every so manieth point; returns the first that there was not."""
    command = [sys.executable, "-m", "tests.data.syncprocess", left, right, str(stride)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


async def assert_whole(left: str, right: str, point: int, seqs: list[int]) -> list[int]:
    """Assert that the next run ends what was interrupted at a point, and writes nothing twice."""
    ours, theirs = stores(left, right, point)
    async with ours, theirs:
        await Synchronizer(ours, theirs, strategy=STRATEGY, batch=BATCH).run()
        await assert_equal(ours, theirs)
        assert await values(ours) == EXPECTED
        found = [(await each.state()).seq for each in (ours, theirs)]
        assert found == (seqs or found), f"point {point}: something was written twice"
    return found


def assert_survives(left: str, right: str, *, stride: int = 1) -> None:
    """Assert that whatever is killed at a point is ended by the next run."""
    points = killed(left, right, stride)
    assert points >= POINTS

    async def check() -> None:
        seqs = await assert_whole(left, right, points, [])  # where it was not killed
        for point in range(0, points, stride):
            await assert_whole(left, right, point, seqs)

    anyio.run(check)


@pytest.mark.promise("data-sync-kills")
def test_between_two_files_a_run_may_be_killed_at_any_point(tmp_path):
    assert_survives(f"sqlite:///{tmp_path}/left{{}}.db", f"sqlite:///{tmp_path}/right{{}}.db")


@pytest.mark.promise("data-sync-kills")
def test_between_a_file_and_a_server_a_run_may_be_killed_at_any_point(tmp_path, postgres_dsn):
    # Each seventh of them: all three moments of a transaction come up. The rest is a stress test.
    assert_survives(f"sqlite:///{tmp_path}/left{{}}.db", postgres_dsn, stride=7)
