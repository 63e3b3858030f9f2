from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.core.telemetry import listen
from aiopatterns.dashboard import live, routes
from aiopatterns.dashboard.events import DashboardFailed
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.worker import Worker
from tests.dashboard.door import ACTING, opened


@pytest.fixture
def jobs():
    return JobQueue("mail", open_backend("memory://"))


async def test_the_page_is_html_with_its_root_escaped(jobs):
    async with opened(jobs.backend) as (dashboard, http):
        page = await http.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-store"
        assert page.text.startswith("<!doctype html>")
        from starlette.applications import Starlette
        from starlette.routing import Mount

        from tests.dashboard.door import TOKEN, client

        path = '/"><script>'
        async with client(Starlette(routes=[Mount(path, dashboard)])) as other:
            await other.get(f"{path}/?token={TOKEN}")
            cookie = {"Cookie": f"{dashboard._guard._cookie}={TOKEN}"}
            shown = await other.get(f"{path}/", headers=cookie)
            assert shown.status_code == 200
            assert '"><script>' not in shown.text


async def test_files_have_tags_and_no_paths(jobs):
    async with opened(jobs.backend) as (_, http):
        sheet = await http.get("/static/dashboard.css")
        assert sheet.headers["content-type"] == "text/css; charset=utf-8"
        assert sheet.headers["cache-control"] == "private, no-cache"
        tagged = {"If-None-Match": sheet.headers["etag"]}
        again = await http.get("/static/dashboard.css", headers=tagged)
        assert (again.status_code, again.content) == (304, b"")
        for path in ("nothing.js", "..%2fapp.py", "%2e%2e/app.py", "..\\app.py", "../app.py"):
            assert (await http.get(f"/static/{path}")).status_code == 404


async def test_jobs_are_listed_looked_at_and_found_dead(jobs):
    @jobs.job(retry=None)
    async def send(to: str) -> None:
        raise ValueError(to)

    async with opened(jobs.backend, show_arguments=True) as (_, http), jobs:
        handle = await send.enqueue("bob")
        async with Worker(jobs) as worker:
            await worker.run_until_empty()
            dead = (await http.get("/api/dead", params={"queue": "mail", "limit": 5})).json()
        assert dead["letters"][0]["error"]["message"] == "bob"
        listed = (await http.get("/api/jobs?queue=mail&state=dead&limit=10&name=send")).json()
        assert [each["id"] for each in listed["jobs"]] == [handle.job_id]
        assert listed["after"] is None
        found = (await http.get(f"/api/jobs/mail/{handle.job_id}")).json()
        assert found["state"] == "dead"
        assert found["arguments"] == "'bob'"
        assert (await http.get("/api/jobs/mail/nobody")).status_code == 404


async def test_a_job_is_found_though_its_queue_and_its_id_hold_slashes():
    backend = open_backend("memory://")
    short, long = JobQueue("shop", backend), JobQueue("shop/mail?#%2F", backend)
    jobs = {queue: queue.job(name="len")(len) for queue in (short, long)}
    ids = {}
    async with opened(backend, queues=[short, long]) as (_, http), short, long:
        for queue, job_id in ((short, "mail/7"), (long, "a//b?"), (long, "plain")):
            await jobs[queue].using(id=job_id).enqueue("x")
            path = f"{quote(queue.name, safe='')}/{quote(job_id, safe='')}"
            found = (await http.get(f"/api/jobs/{path}")).json()
            ids[found["id"]] = found["queue"]
    assert ids == {"mail/7": short.name, "a//b?": long.name, "plain": long.name}


QUESTIONS = (
    (f"/api/jobs?queue=mail&limit={'9' * 5000}", 400, "limit must be a whole number from 1 to 500"),
    ("/api/jobs?queue=stranger", 404, "no such queue"),
    ("/api/jobs", 404, "no such queue"),
    ("/api/dead?queue=stranger", 404, "no such queue"),
    ("/api/jobs/stranger/1", 404, "no such queue"),
    ("/api/jobs?queue=mail&state=done", 400, "state must be one of"),
    ("/api/jobs?queue=mail&limit=0", 400, "limit must be a whole number from 1 to 500"),
    ("/api/jobs?queue=mail&limit=501", 400, "limit"),
    ("/api/dead?queue=mail&limit=x", 400, "limit"),
    ("/api/jobs?queue=mail&after=x", 400, "after"),
    ("/api/jobs?queue=mail&after=9.1", 400, "after"),
    ("/nowhere", 404, "Not Found"),
    ("/api/actions/pause", 405, "Not Allowed"),
)


async def test_wrong_questions_are_told_what_is_allowed(jobs):
    async with opened(jobs.backend, queues=[jobs]) as (_, http):
        for path, status, word in QUESTIONS:
            answer = await http.get(path)
            assert answer.status_code == status, path
            assert word in answer.json()["error"], path


@pytest.mark.promise("dashboard-actions")
async def test_actions_are_off_unless_allowed(jobs):
    async with opened(jobs.backend, queues=[jobs]) as (_, http), jobs:
        assert (await http.get("/api/overview")).json()["actions"] is False
        for action in ("requeue", "cancel", "pause", "resume", "purge", "nothing"):
            answer = await http.post(
                f"/api/actions/{action}", json={"queue": "mail"}, headers=ACTING
            )
            assert answer.status_code == 403
            assert "--allow-actions" in answer.json()["error"]
        assert not (await jobs.statistics()).paused


async def test_an_action_is_done_and_logged(jobs):
    async with opened(jobs.backend, queues=[jobs], allow_actions=True) as (dashboard, http), jobs:
        assert (await http.get("/api/overview")).json()["actions"] is True
        done = await http.post("/api/actions/pause", json={"queue": "mail"}, headers=ACTING)
        assert done.json() == {"done": 0}
        assert (await jobs.statistics()).paused
        lines = [line for _, line in dashboard._watch._lines]
        assert any(b'"event":"dashboard.pause"' in each for each in lines)


ORDERS = (
    ("nothing", b'{"queue": "mail"}', 404),
    ("pause", b"", 400),
    ("pause", b"[]", 400),
    ("pause", b'{"queue": 1}', 400),
    ("pause", b'{"queue": "mail", "other": 1}', 400),
    ("pause", b'{"queue": "mail", "ids": ["1"]}', 400),
    ("cancel", b'{"queue": "mail"}', 400),
    ("cancel", b'{"queue": "stranger", "ids": ["1"]}', 404),
    ("cancel", b'{"queue": "' + b"x" * 70_000 + b'"}', 413),
)


async def test_wrong_orders_change_nothing(jobs):
    async with opened(jobs.backend, queues=[jobs], allow_actions=True) as (_, http):
        headers = {**ACTING, "Content-Type": "application/json; charset=utf-8"}
        for action, content, status in ORDERS:
            answer = await http.post(f"/api/actions/{action}", content=content, headers=headers)
            assert answer.status_code == status, content
            assert answer.json()["error"]


async def test_an_outage_is_503_without_the_password(jobs, monkeypatch):
    async with opened(jobs.backend) as (_, http):
        for error in (
            BackendUnavailableError("no answer at redis://u:geheim@h"),
            BackendError("full: redis://u:geheim@h"),
        ):

            async def fail(error=error):
                raise error

            monkeypatch.setattr("aiopatterns.dashboard.fleet.Fleet.look", lambda self: fail())
            answer = await http.get("/api/overview")
            assert answer.status_code == 503
            assert "u:***@h" in answer.json()["error"]


async def test_a_bug_is_500_and_is_told_to_the_log_alone(jobs, monkeypatch):
    heard: list[Any] = []
    async with opened(jobs.backend) as (_, http):

        async def fail():
            raise KeyError("redis://u:geheim@h/0")

        monkeypatch.setattr("aiopatterns.dashboard.fleet.Fleet.look", lambda self: fail())
        answer = await http.get("/api/overview")
        assert answer.status_code == 500
        assert "KeyError" not in answer.text
        with listen(heard.append):
            await http.get("/api/overview?secret=geheim")
    error = "KeyError: 'redis://u:***@h/0'"
    assert heard == [DashboardFailed(path="/api/overview", error=error)]


async def test_too_many_viewers_are_told_so(jobs, monkeypatch):
    monkeypatch.setattr(routes, "MAX_VIEWERS", 0)
    async with opened(jobs.backend) as (_, http):
        answer = await http.get("/api/live")
        assert answer.status_code == 503
        assert "watch already" in answer.json()["error"]


@pytest.mark.parametrize(("last", "after"), [("17", 17), ("x", 0), ("", 0), ("-1", 0)])
async def test_a_stream_goes_on_where_it_was(jobs, monkeypatch, last, after):
    asked = []

    async def stream(self, after=0):
        asked.append(after)
        yield b"event: log\n\n"

    monkeypatch.setattr(live.Watch, "stream", stream)
    async with opened(jobs.backend) as (_, http):
        answer = await http.get("/api/live", headers={"Last-Event-ID": last})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.text == "event: log\n\n"
        assert asked == [after]


async def test_history_is_that_of_the_looks(jobs):
    async with opened(jobs.backend, queues=[jobs]) as (_, http):
        assert (await http.get("/api/history")).json() == {"at": [], "queues": {}, "streams": {}}
        at = (await http.get("/api/overview")).json()["at"]
        kept = (await http.get("/api/history")).json()
        assert kept["at"] == [at]
        assert kept["queues"]["mail"]["queued"] == [0]


async def test_text_of_others_is_data_and_never_markup(jobs):
    evil = "<img src=x onerror=alert(1)>"

    @jobs.job(name=evil, retry=None)
    async def send(to: str) -> None:
        raise ValueError(to)

    async with opened(jobs.backend, show_arguments=True) as (_, http), jobs:
        await send.enqueue(evil)
        async with Worker(jobs) as worker:
            await worker.run_until_empty()
            for path in (
                "/api/overview",
                "/api/dead?queue=mail",
                "/api/jobs?queue=mail&state=dead",
            ):
                answer = await http.get(path)
                assert answer.headers["content-type"] == "application/json"
                assert answer.headers["x-content-type-options"] == "nosniff"
            assert evil not in (await http.get("/")).text
