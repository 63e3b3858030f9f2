"""One test for each threat: fault book 18."""

from __future__ import annotations

import re
import traceback
from http.cookies import SimpleCookie
from typing import Any

import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.core.telemetry import listen
from aiopatterns.dashboard.app import Dashboard
from aiopatterns.dashboard.guard import Guard
from aiopatterns.jobs.queue import JobQueue
from tests.dashboard.door import ACTING, BASE, TOKEN, client, opened

PATHS = (
    "/",
    "/static/app.js",
    "/api/overview",
    "/api/history",
    "/api/live",
    "/api/jobs?queue=q",
    "/api/jobs/q/1",
    "/api/dead?queue=q",
    "/nowhere",
)


async def nothing(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"shown"})


def guarded(**options) -> Guard:
    return Guard(nothing, token=TOKEN, **options)


@pytest.fixture
def backend():
    return open_backend("memory://")


@pytest.mark.promise("dashboard-token")
async def test_without_the_token_nothing_is_shown(backend):
    async with Dashboard(backend, token=TOKEN) as dashboard, client(dashboard) as http:
        for path in PATHS:
            answer = await http.get(path)
            assert answer.status_code == 401, path
            assert "token" in answer.json()["error"]
            assert answer.headers["cache-control"] == "no-store"
        assert (await http.post("/api/actions/pause", headers=ACTING)).status_code == 401
        assert (await http.get("/api/overview?token=" + TOKEN)).status_code == 401, "pages only"
        assert dashboard.statistics().viewers == 0


async def test_a_wrong_token_is_none():
    guard = guarded()
    async with client(guard) as http:
        for given in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä" * 8, "\x00", "' OR 1=1"):
            assert (await http.get("/", params={"token": given})).status_code == 401, given
            cookie = f"{guard._cookie}={given}".encode("latin-1")
            answer = await http.get("/", headers={b"Cookie": cookie})
            assert answer.status_code == 401, given


async def test_the_token_becomes_a_cookie_and_leaves_the_address():
    async with client(guarded()) as http:
        answer = await http.get(f"/?token={TOKEN}")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
        assert cookie["httponly"]
        assert cookie["samesite"] == "Strict"
        assert cookie["path"] == "/"
        assert not cookie["secure"], "plain http would not send it"
        assert (await http.get("/")).text == "shown"


async def test_a_token_of_any_characters_survives_its_way(backend):
    token = "a+b&c=d%20#e?f/g:h@i~j|k<l>m"
    async with Dashboard(backend, token=token) as dashboard, client(dashboard) as http:
        assert (await http.get(dashboard.address(BASE))).status_code == 303
        assert (await http.get("/api/overview")).status_code == 200


async def test_over_tls_the_cookie_is_secure():
    async with client(guarded(), base="https://localhost") as http:
        answer = await http.get(f"/?token={TOKEN}")
        assert "; Secure" in answer.headers["set-cookie"]


async def test_mounted_the_cookie_is_for_its_own_path(backend):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    async with Dashboard(backend, token=TOKEN) as dashboard:
        async with client(Starlette(routes=[Mount("/ops", dashboard)])) as http:
            answer = await http.get(f"/ops/?token={TOKEN}")
            assert answer.status_code == 303
            assert answer.headers["location"] == "/ops/"
            assert "Path=/ops;" in answer.headers["set-cookie"]
            page = await http.get("/ops/")
            assert page.status_code == 200
            assert '"/ops/static/app.js"' in page.text
            assert (await http.get("/ops/api/overview")).status_code == 200


async def test_dashboards_side_by_side_have_cookies_of_their_own():
    names = {Guard(nothing, token=each * 16)._cookie for each in "abc"}
    assert len(names) == 3


async def test_the_cookie_is_found_among_others():
    guard = guarded()
    async with client(guard) as http:
        for header in (
            f"a=b; {guard._cookie}={TOKEN}; c",
            f"{guard._cookie}=wrong; {guard._cookie}={TOKEN}",
        ):
            assert (await http.get("/", headers={"Cookie": header})).status_code == 200
        twice = [("Cookie", "a=b"), ("Cookie", f"{guard._cookie}={TOKEN}")]
        assert (await http.get("/", headers=twice)).status_code == 200
        hosts = [("Host", "localhost"), ("Host", "localhost"), *twice]
        assert (await http.get("/", headers=hosts)).status_code == 403
        for header in (f"other={TOKEN}", TOKEN, f"x{guard._cookie}={TOKEN}"):
            assert (await http.get("/", headers={"Cookie": header})).status_code == 401


STRANGE = (
    "evil.example",
    "evil.example:8765",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "localhost, evil.example",
    "0.0.0.0",
    "10.0.0.1",
    "[::1",
    "",
)


@pytest.mark.promise("dashboard-host")
async def test_a_name_that_was_rebound_to_this_machine_is_refused():
    guard = guarded()
    async with client(guard) as http:
        for host in STRANGE:
            cookie = {"Cookie": f"{guard._cookie}={TOKEN}", "Host": host}
            answer = await http.get("/", headers=cookie)
            assert answer.status_code == 403, host
            assert "Host" in answer.json()["error"]
            assert (await http.get(f"/?token={TOKEN}", headers={"Host": host})).status_code == 403


async def test_names_of_this_machine_and_given_ones_are_heeded():
    guard = guarded(hosts=("Ops.Example",))
    async with client(guard) as http:
        for host in ("127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:8765", "ops.example"):
            cookie = {"Cookie": f"{guard._cookie}={TOKEN}", "Host": host}
            assert (await http.get("/", headers=cookie)).status_code == 200, host


FORGED = {
    "no header of ours": {"Origin": BASE, "Sec-Fetch-Site": "same-origin"},
    "another value of it": {**ACTING, "X-Aiopatterns-Action": "0"},
    "another site": {**ACTING, "Sec-Fetch-Site": "cross-site"},
    "another site of this machine": {**ACTING, "Sec-Fetch-Site": "same-site"},
    "typed by a person": {**ACTING, "Sec-Fetch-Site": "none"},
    "another origin": {"Origin": "http://evil.example", "X-Aiopatterns-Action": "1"},
    "another port": {"Origin": "http://127.0.0.1:1", "X-Aiopatterns-Action": "1"},
    "an opaque origin": {"Origin": "null", "X-Aiopatterns-Action": "1"},
    "no origin at all": {"X-Aiopatterns-Action": "1"},
}


@pytest.mark.promise("dashboard-forgery")
async def test_a_forged_action_is_refused(backend):
    jobs = JobQueue("q", backend)
    async with opened(backend, allow_actions=True, queues=[jobs]) as (_, http), jobs:
        for case, headers in FORGED.items():
            answer = await http.post("/api/actions/pause", json={"queue": "q"}, headers=headers)
            assert answer.status_code == 403, case
            assert not (await jobs.statistics()).paused, case


async def test_an_action_of_the_page_is_let_through(backend):
    jobs = JobQueue("q", backend)
    async with opened(backend, allow_actions=True, queues=[jobs]) as (_, http), jobs:
        for headers in (
            ACTING,
            {"Origin": BASE, "X-Aiopatterns-Action": "1"},
            {"Sec-Fetch-Site": "same-origin", "X-Aiopatterns-Action": "1"},
        ):
            answer = await http.post("/api/actions/pause", json={"queue": "q"}, headers=headers)
            assert answer.json() == {"done": 0}
        assert (await jobs.statistics()).paused


async def test_a_form_of_another_site_cannot_send_an_order(backend):
    async with opened(backend, allow_actions=True, queues=["q"]) as (_, http):
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            headers = {**ACTING, "Content-Type": kind}
            answer = await http.post(
                "/api/actions/pause", content=b'{"queue": "q"}', headers=headers
            )
            assert answer.status_code == 415


async def test_another_port_or_site_can_open_the_page_and_nothing_else(backend):
    async with opened(backend) as (dashboard, http):
        for site in ("same-site", "cross-site"):
            headers = {"Sec-Fetch-Site": site}
            assert (await http.get("/", headers=headers)).status_code == 200
            for path in PATHS[1:]:
                assert (await http.get(path, headers=headers)).status_code == 403, path
        for site in ("same-origin", "none"):
            headers = {"Sec-Fetch-Site": site}
            assert (await http.get("/api/overview", headers=headers)).status_code == 200
        assert (await http.post(dashboard.address(BASE), headers=ACTING)).status_code == 405


async def test_other_origins_get_no_permission_to_read(backend):
    async with opened(backend) as (_, http):
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        for answer in (
            await http.get("/api/overview", headers=asked),
            await http.options("/api/actions/pause", headers=asked),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.promise("dashboard-policy")
async def test_no_inline_code_no_other_host_no_frame(backend):
    async with opened(backend) as (_, http):
        for path in PATHS[:4] + PATHS[5:]:
            headers = (await http.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "unsafe" not in policy
            assert "http:" not in policy
            assert "frame-ancestors 'none'" in policy
            assert "base-uri 'none'" in policy
            assert "trusted-types 'none'" in policy  # text cannot become markup by any script
            assert headers["x-frame-options"] == "DENY"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
        page = (await http.get("/")).text
        assert not re.search(r"<script(?![^>]*\bsrc=)", page)
        assert "<style" not in page
        assert not re.search(r"\s(on\w+|style)=", page)
        assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", page)


async def test_refusals_have_the_same_headers():
    async with client(guarded()) as http:
        headers = (await http.get("/")).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


async def test_a_websocket_is_closed():
    sent: list[Any] = []

    async def receive() -> Any: ...

    async def send(message):
        sent.append(message)

    await guarded()({"type": "websocket", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.promise("dashboard-secrets")
async def test_the_token_is_in_no_repr_error_event_or_page(backend):
    with pytest.raises(ValueError, match="at least 16") as wrong:
        Dashboard(backend, token="geheim")
    assert "geheim" not in "".join(traceback.format_exception_only(wrong.value))
    heard: list[Any] = []
    with listen(heard.append):
        async with opened(backend, allow_actions=True, queues=["q"]) as (dashboard, http):
            await http.post("/api/actions/pause", json={"queue": "q"}, headers=ACTING)
            shown = [repr(dashboard), repr(dashboard.statistics()), repr(dashboard._guard)]
            shown += [(await http.get(path)).text for path in PATHS[:4] + PATHS[5:]]
    assert heard
    assert TOKEN not in "".join([*shown, *map(repr, heard)])


async def test_tokens_that_are_made_are_long_and_different(backend):
    made = {Dashboard(backend).address("x").partition("token=")[2] for _ in range(5)}
    assert len(made) == 5
    assert all(len(each) >= 43 for each in made)


@pytest.mark.parametrize(
    "token", ["short", "x" * 15, "with a blank in it", "x" * 20 + "\n", "ü" * 20, "x" * 20 + ";"]
)
def test_bad_tokens(token):
    with pytest.raises(ValueError, match=r"^token must") as wrong:
        Guard(nothing, token=token)
    assert token not in str(wrong.value)


def test_tokens_are_text():
    wrong: Any = b"x" * 20
    with pytest.raises(TypeError, match="token must be a string, not bytes"):
        Guard(nothing, token=wrong)
    with pytest.raises(ValueError, match="hosts must"):
        guarded(hosts=[""])
