"""``aiopatterns bench --quick`` as it is: every pattern, in the time that it promises."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.stress, pytest.mark.real, pytest.mark.timeout(120)]


def test_quick_is_quick(tmp_path):
    page, data = tmp_path / "bench.html", tmp_path / "bench.json"
    command = [sys.executable, "-m", "aiopatterns", "bench", "--quick"]
    command += ["--html", str(page), "--json", str(data)]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert time.monotonic() - began < 15
    told = json.loads(data.read_text("utf-8"))
    assert {each["group"] for each in told["results"]} >= {"flow", "over embedded://"}
    assert all(each["seconds"] for each in told["results"])
    assert page.stat().st_size < 100_000
