from __future__ import annotations

import importlib.util
import re
from contextlib import AsyncExitStack

import anyio
import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.contrib.asgi import lifespan
from aiopatterns.core.errors import BackendUnavailableError, ClosedError
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.dashboard.app import Dashboard, DashboardStatistics
from aiopatterns.testing import Trial, cancel_everywhere
from tests.dashboard.door import BASE, TOKEN, client, opened


async def test_it_is_an_owner_that_opens_its_backend_again_and_again():
    backend = open_backend("memory://")
    dashboard = Dashboard(backend, token=TOKEN)
    assert not dashboard.is_open
    for times in (1, 2):
        async with dashboard, client(dashboard) as http:
            await http.get(dashboard.address(BASE))
            assert (await http.get("/api/overview")).json()["backend"] == "memory://"
            assert dashboard.statistics() == DashboardStatistics(viewers=0, points=times)
            with pytest.raises(RuntimeError, match="open already"):
                await dashboard.__aenter__()
    assert dashboard.state is OwnerState.STOPPED


async def test_closed_it_says_so():
    dashboard = Dashboard("memory://", token=TOKEN)
    async with client(dashboard) as http:
        await http.get(dashboard.address(BASE))
        for path in ("overview", "history", "live", "jobs?queue=x", "jobs/x/1", "dead?queue=x"):
            answer = await http.get(f"/api/{path}")
            assert answer.status_code == 503
            assert "'dashboard' is not open" in answer.json()["error"]


def test_the_address_is_made_of_where_it_is():
    dashboard = Dashboard("memory://", token=TOKEN)
    assert dashboard.address("https://x.org/ops/") == f"https://x.org/ops/?token={TOKEN}"


@pytest.mark.real
async def test_a_backend_that_is_away_at_the_beginning_is_an_error():
    dashboard = Dashboard("redis://:geheim@127.0.0.1:1", token=TOKEN)
    with pytest.raises(BackendUnavailableError) as wrong:
        async with dashboard:
            raise AssertionError
    assert "geheim" not in str(wrong.value)
    assert dashboard.state is not OwnerState.RUNNING


@pytest.mark.parametrize("missing", ["starlette", "jinja2", "uvicorn"])
def test_a_missing_extra_names_the_command(monkeypatch, missing):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "aiopatterns.dashboard.app.find_spec", lambda name: None if name == missing else found(name)
    )
    with pytest.raises(ImportError, match=rf"{missing}: pip install 'aiopatterns\[dashboard\]'"):
        Dashboard("memory://")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queues": [1]}, TypeError),
        ({"queues": [""]}, ValueError),
        ({"hosts": [""]}, ValueError),
        ({"token": ""}, ValueError),
        ({"name": ""}, ValueError),
    ],
)
def test_bad_values_are_named(options, error):
    (name,) = options
    with pytest.raises(error, match=name):
        Dashboard("memory://", **options)


async def served(app, *, during) -> list[str]:
    """Run the lifespan of an application, as a server does."""
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    told: list[str] = []

    async def receive():
        message = next(asked)
        if message["type"] == "lifespan.shutdown":
            await during()
        return message

    async def send(message):
        told.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    return told


async def test_a_server_opens_it_by_its_lifespan_unless_it_is_open():
    dashboard = Dashboard("memory://", token=TOKEN)
    states: list[bool] = []

    async def during() -> None:
        states.append(dashboard.is_open)

    complete = ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert await served(dashboard, during=during) == complete
    states.append(dashboard.is_open)
    async with dashboard:
        assert await served(dashboard, during=during) == complete
        states.append(dashboard.is_open)
    assert states == [True, False, True, True]


async def test_mounted_it_lives_as_long_as_the_application():
    from starlette.applications import Starlette
    from starlette.routing import Mount

    dashboard = Dashboard("memory://", token=TOKEN)
    app = Starlette(routes=[Mount("/ops", dashboard)], lifespan=lifespan(dashboard))
    codes: list[int] = []

    async def during() -> None:
        async with client(app) as http:
            await http.get(dashboard.address(f"{BASE}/ops"))
            codes.append((await http.get("/ops/api/overview")).status_code)

    await served(app, during=during)
    assert codes == [200]
    assert not dashboard.is_open


async def test_nothing_is_asked_while_nobody_watches():
    backend = open_backend("memory://")
    async with opened(backend) as (dashboard, _):
        from aiopatterns.core.clock import sleep

        await sleep(0.01)
        assert dashboard.statistics().points == 0


@pytest.mark.real
async def test_an_outage_of_redis_is_shown_and_ends_by_itself(fault_proxy, monkeypatch):
    monkeypatch.setattr("aiopatterns.backends.redis.client.RETRY_FOR", 0.1)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(fault_proxy)
        backend = open_backend(proxy.url, timeout=1.0)
        dashboard, http = await stack.enter_async_context(opened(backend, queues=["mail"]))
        found: list[str] = []

        async def read() -> None:
            async for chunk in dashboard._watch.stream():
                found.extend(re.findall(r"^event: (\w+)$", chunk.decode(), re.MULTILINE))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await seen(found, "overview")
            proxy.refuse()
            proxy.cut()
            await seen(found, "outage")
            answer = await http.get("/api/jobs?queue=mail")
            assert answer.status_code == 503
            assert (await http.get("/")).status_code == 200
            proxy.accept()
            await seen(found, "overview")
            assert (await http.get("/api/jobs?queue=mail")).status_code == 200
            tasks.cancel_scope.cancel()


async def seen(found: list[str], event: str) -> None:
    """Wait until a new event of this kind has come."""
    found.clear()
    while event not in found:
        await anyio.sleep(0.02)


def test_cancelled_anywhere_it_leaves_nothing_open():
    def scenario() -> Trial:
        backend = open_backend("memory://")
        dashboard = Dashboard(backend, token=TOKEN, queues=["mail"])

        async def work() -> None:
            async with dashboard, client(dashboard) as http:
                await http.get(dashboard.address(BASE))
                await http.get("/api/overview")
                stream = dashboard._watch.stream()
                try:
                    await anext(stream)
                    await anext(stream)
                finally:
                    await stream.aclose()

        async def check() -> None:
            assert not dashboard.is_open
            assert dashboard.statistics().viewers == 0
            with pytest.raises(ClosedError):
                await backend.time()

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=2)
