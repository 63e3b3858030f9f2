from __future__ import annotations

import os

from aiopatterns.jobs.reload import sources


def test_python_files_are_found_and_their_changes_seen(tmp_path):
    for name in ("a.py", "b.txt", "pkg/c.py", ".hidden/d.py", "__pycache__/e.py", "env/f.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "broken.py").symlink_to(tmp_path / "nowhere.py")
    found = sources(tmp_path)
    assert {os.path.relpath(each, tmp_path) for each in found} == {"a.py", "pkg/c.py"}
    assert sources(tmp_path) == found
    os.utime(tmp_path / "a.py", (1, 1))
    assert sources(tmp_path) != found


def test_a_folder_that_is_gone_holds_nothing(tmp_path):
    assert sources(tmp_path / "gone") == {}
