"""Through real sockets: streams, a token that is logged nowhere, and how it all ends."""

from __future__ import annotations

import logging
import os
import signal
import socket

import anyio
import httpx
import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.core.clock import monotonic
from aiopatterns.dashboard.app import Dashboard
from aiopatterns.dashboard.serving import serve
from tests.dashboard.door import TOKEN

pytestmark = [pytest.mark.real, pytest.mark.timeout(30)]


async def test_a_stream_is_served_until_a_signal(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    dashboard = Dashboard(open_backend("memory://"), token=TOKEN)
    listener = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with dashboard, anyio.create_task_group() as tasks:
        await tasks.start(serve, dashboard, listener)
        async with httpx.AsyncClient(base_url=base, trust_env=False) as http:
            assert (await http.get("/")).status_code == 401
            assert (await http.get(dashboard.address(""))).status_code == 303
            assert "server" not in (await http.get("/")).headers
            async with http.stream("GET", "/api/live") as live:
                lines = live.aiter_lines()
                assert await anext(lines) == "retry: 2000"
                while await anext(lines) != "event: overview":
                    pass
                assert dashboard.statistics().viewers == 1
            with anyio.fail_after(5):
                while dashboard.statistics().viewers:
                    await anyio.sleep(0.01)
            async with http.stream("GET", "/api/live") as live:
                lines = live.aiter_lines()
                await anext(lines)
                began = monotonic()
                os.kill(os.getpid(), signal.SIGTERM)
                with pytest.raises(httpx.HTTPError):
                    async for _ in lines:
                        pass
                    raise httpx.ReadError("ended")
    assert monotonic() - began < 5
    ours = [each.getMessage() for each in caplog.records if not each.name.startswith("httpcore")]
    ours = [each for each in ours if "HTTP Request" not in each]  # the client's own
    assert TOKEN not in "".join((*ours, *capfd.readouterr()))


async def test_cancelled_it_is_gone_at_once():
    dashboard = Dashboard(open_backend("memory://"), token=TOKEN)
    listener = socket.create_server(("127.0.0.1", 0))
    async with dashboard, anyio.create_task_group() as tasks:
        await tasks.start(serve, dashboard, listener)
        tasks.cancel_scope.cancel()
    assert listener.fileno() == -1
