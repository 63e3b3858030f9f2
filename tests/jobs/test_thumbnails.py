"""The example of the job queue runs unchanged in memory and on Redis, by its URL alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "thumbnails_jobs.py"


@pytest.mark.real
@pytest.mark.promise("jobs-contract")
def test_the_example_runs_on_both(backend_url):
    command = [sys.executable, "-W", "error", str(EXAMPLE), backend_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 thumbnails and a sheet of 3072 pixels" in done.stdout
