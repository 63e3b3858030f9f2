"""The example of the sharded cache runs unchanged in memory and on Redis, by its URL alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "sharded_cache.py"


@pytest.mark.real
@pytest.mark.parametrize("on", ["memory", "redis"])
def test_the_example_runs_on_both(on, redis_url):
    url = redis_url if on == "redis" else "memory://"
    command = [sys.executable, "-W", "error", str(EXAMPLE), url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sessions: 299 here, 4 questions to the database" in done.stdout
    assert "thumbnails: 100 of 1000 kept" in done.stdout
    assert "codes: 201 were over" in done.stdout
