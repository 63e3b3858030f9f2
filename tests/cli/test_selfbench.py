from __future__ import annotations

import json

import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.cli import selfbench as module
from aiopatterns.cli.app import main
from aiopatterns.cli.benchcases import LOCAL
from aiopatterns.cli.exits import DONE, FAILED
from aiopatterns.cli.selfbench import _Effort
from aiopatterns.core.errors import BackendUnavailableError

pytestmark = [pytest.mark.real, pytest.mark.timeout(40)]


@pytest.fixture
def brief(monkeypatch):
    """Repeats that are too short to tell anything, and few cases."""
    monkeypatch.setattr(module, "_QUICK", _Effort(2, 1e-4))
    monkeypatch.setattr(module, "LOCAL", LOCAL[:3])
    return monkeypatch


def test_everything_is_measured_and_written(brief, capsys, tmp_path):
    page, data = tmp_path / "bench.html", tmp_path / "bench.json"
    assert main(["bench", "--quick", "--html", str(page), "--json", str(data)]) == DONE
    assert sorted(tmp_path.iterdir()) == [page, data]
    out = capsys.readouterr().out
    told = json.loads(data.read_text("utf-8"))
    groups = {each["group"] for each in told["results"]}
    assert groups == {"flow", "over memory://", "over embedded://"}
    for each in told["results"]:
        assert each["name"] in out
        assert each["name"] in page.read_text("utf-8")
        assert len(each["seconds"]) == 2
        assert each["per_second"] > 0
    assert told["machine"]["python"] in out
    assert told["effort"] == {"repeats": 2, "seconds": 1e-4}
    assert "2 repeats of 0.0001 s" in out


def test_where_no_server_can_be_started_that_is_said(brief, capsys):
    def refuse(url: str):
        if url.startswith("embedded"):
            raise BackendUnavailableError("no Redis server is installed")
        return opened(url)

    opened = open_backend
    brief.setattr(module, "open_backend", refuse)
    assert main(["bench", "--quick"]) == DONE
    out = capsys.readouterr().out
    assert "over embedded://: not measured: no Redis server is installed" in out


def test_a_file_that_cannot_be_written_is_told_at_once(brief, capsys, tmp_path):
    brief.setattr(module, "_measure", None)
    assert main(["bench", "--quick", "--html", str(tmp_path / "no" / "page.html")]) == FAILED
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "page.html" in told.err
    assert not told.out
