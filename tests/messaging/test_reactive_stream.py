"""The documented reactive consumer, in memory and on Redis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "reactive_stream.py"


@pytest.mark.promise("messaging-stream-example")
@pytest.mark.real
@pytest.mark.leaves("{ap:log:*", "ap:*lease*")
def test_the_example_runs(place):
    command = [sys.executable, str(PROGRAM), place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "order 11 was given up: Reject: no such article",
        "ann: 145.00, in order",
        "bob: 155.00, in order",
        "eve: 165.00, in order",
        "a group that came later sees 30 orders",
    ]
