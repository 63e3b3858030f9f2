from __future__ import annotations

from aiopatterns.dashboard import files
from aiopatterns.dashboard.files import load


def test_all_files_are_known_by_type_and_small_together():
    page = load()
    assert {"dashboard.css", "app.js", "icon.svg"} <= page.files.keys()
    for name, file in page.files.items():
        assert "/" not in name
        assert file.body
        assert file.etag.startswith('"')
    assert len({file.etag for file in page.files.values()}) == len(page.files)
    assert page.files["app.js"].media_type == "text/javascript; charset=utf-8"
    everything = sum(len(file.body) for file in page.files.values()) + len(page.template)
    assert everything <= 150 * 1024


def test_files_name_no_other_host():
    page = load()
    for name, file in page.files.items():
        text = file.body.decode().replace("http://www.w3.org/", "")
        assert "http://" not in text, name
        assert "https://" not in text, name


def test_files_of_other_kinds_are_not_given_out(monkeypatch):
    monkeypatch.setattr(files, "_TYPES", {"svg": "image/svg+xml"})
    assert {name.rpartition(".")[2] for name in load().files} == {"svg"}
