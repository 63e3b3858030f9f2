from __future__ import annotations

import sys
from typing import Any, cast

import pytest

from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.target import load_queue


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
    (tmp_path / "shop_of_target_test.py").write_text(
        "from aiopatterns.jobs.queue import JobQueue\n"
        "jobs = JobQueue('shop')\n"
        "class holder:\n    jobs = jobs\n"
        "other = 17\n"
        "def make(backend):\n    return JobQueue('made', backend)\n"
        "def wrong(backend):\n    return 17\n"
    )
    (tmp_path / "package_of_target_test").mkdir()
    (tmp_path / "package_of_target_test" / "__init__.py").write_text("import nothing_at_all\n")
    (tmp_path / "broken_of_target_test.py").write_text("import nothing_of_this_name\n")
    yield
    sys.modules.pop("shop_of_target_test", None)


@pytest.mark.parametrize("name", ["jobs", "holder.jobs"])
@pytest.mark.usefixtures("here")
def test_a_queue_in_this_folder_is_found(name):
    queue = load_queue(f"shop_of_target_test:{name}")
    assert isinstance(queue, JobQueue)
    assert load_queue("shop_of_target_test:jobs") is queue


@pytest.mark.promise("jobs-worker-input")
@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("shop", "module:name"),
        ("shop:", "module:name"),
        (":jobs", "module:name"),
        ("no_such_module_here:jobs", "there is no module 'no_such_module_here'"),
        ("no_such.module.here:jobs", "there is no module"),
        ("..:jobs", "there is no module"),
        ("shop_of_target_test:nothing", "has no such name"),
        ("shop_of_target_test:other", "holds a int there"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_names_no_queue_is_refused(target, text):
    with pytest.raises(ValueError, match="target must name a queue") as caught:
        load_queue(target)
    assert text in str(caught.value)


@pytest.mark.usefixtures("here")
def test_a_function_makes_the_queue_for_the_backend_it_is_given(monkeypatch):
    queue = load_queue("shop_of_target_test:make", "redis://host:1")
    assert (queue.name, queue.backend.url) == ("made", "redis://host:1")
    with pytest.raises(ValueError, match="neither backend nor AIOPATTERNS_BACKEND names one"):
        load_queue("shop_of_target_test:make")
    monkeypatch.setenv("AIOPATTERNS_BACKEND", "memory://")
    assert load_queue("shop_of_target_test:make").backend.scheme == "memory"
    assert load_queue("shop_of_target_test:jobs").name == "shop"
    with pytest.raises(ValueError, match="holds a int there"):
        load_queue("shop_of_target_test:wrong", "memory://")
    with pytest.raises(ValueError, match="its backend is memory://, so none may be given"):
        load_queue("shop_of_target_test:jobs", "memory://")


@pytest.mark.usefixtures("here")
def test_errors_of_the_module_leave_as_they_are():
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        load_queue("broken_of_target_test:jobs")
    with pytest.raises(ModuleNotFoundError, match="nothing_at_all"):
        load_queue("package_of_target_test.jobs:jobs")
    with pytest.raises(TypeError, match="target"):
        load_queue(cast("Any", 17))
