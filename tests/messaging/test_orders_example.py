"""The example of the three services runs unchanged in memory and, as real processes, on Redis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "orders.py"


@pytest.mark.real
@pytest.mark.promise("messaging-service-example")
@pytest.mark.parametrize("on", ["memory", "redis"])
def test_the_example_runs_on_both(on, redis_url):
    url = redis_url if on == "redis" else "memory://"
    command = [sys.executable, "-W", "error", str(EXAMPLE), url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [
        "users 1.0 is ready",
        "orders 1.0 is ready",
        "notifications 1.0 is ready",
        "order 1 for Ann",
        "refused (unknown_user): UnknownUserError: no user 3",
        "refused (bad_payload): CodecError: the payload is not what 'create_order'",
        "notified: Ann: 2 tea",
        "order.create: ",
        "all have left",
    ]
    if on == "redis":
        lines.append("users was restarted; 40 orders, no error")
    for line in lines:
        assert line in done.stdout, done.stdout + done.stderr
    logged = [line for line in done.stdout.splitlines() if "correlation_id='request-17'" in line]
    for event, process in (
        ("user.get", "users"),
        ("order.create", "orders"),
        ("mail", "notifications"),
    ):
        (line,) = [each for each in logged if f"event='{event}'" in each]
        assert f"process='{process if on == 'redis' else 'customer'}'" in line
