"""The examples of this room over a real Redis; in memory they run with all the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "docs" / "examples").glob("*cache*.py"))


@pytest.mark.real
@pytest.mark.promise("habits-examples")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_over_redis(example, redis_url, tmp_path):
    command = [sys.executable, "-W", "error", str(example), redis_url]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.strip()
