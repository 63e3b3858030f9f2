"""The example of the services runs unchanged in memory and, with real processes, on Redis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "services.py"


@pytest.mark.real
@pytest.mark.promise("cluster-services-example")
@pytest.mark.parametrize("on", ["memory", "redis"])
def test_the_example_runs_on_both(on, redis_url):
    url = redis_url if on == "redis" else "memory://"
    command = [sys.executable, "-W", "error", str(EXAMPLE), url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "registered: 3 prices, 2 stock, 1 shop",
        "60 purchases:",
        "prices-2 was ill, was left out, and is used again",
        "prices-1 was killed;",
        "all have left",
    ):
        assert line in done.stdout
