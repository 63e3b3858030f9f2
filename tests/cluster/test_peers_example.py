"""The example of the peers runs unchanged in memory and over TCP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "peers.py"


@pytest.mark.real
@pytest.mark.promise("cluster-peer-example")
@pytest.mark.parametrize("kind", ["memory", "tcp"])
def test_the_example_runs_on_both(kind):
    command = [sys.executable, "-W", "error", str(EXAMPLE), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "all five know each other",
        "oslo is dead for the others",
        "every shop knows every price",
        "cairo alone knows the price of salt",
    ):
        assert line in done.stdout
