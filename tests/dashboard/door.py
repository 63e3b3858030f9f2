"""A browser's side of a dashboard, without a socket."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from aiopatterns.dashboard.app import Dashboard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

TOKEN = "a-token-of-a-test-0123456789"
BASE = "http://127.0.0.1:8765"
ACTING = {"Origin": BASE, "Sec-Fetch-Site": "same-origin", "X-Aiopatterns-Action": "1"}


def client(app: Any, **options: Any) -> httpx.AsyncClient:
    """A client that follows nothing, and knows no token."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    options |= {"verify": False, "trust_env": False}  # authorities and proxies take time
    return httpx.AsyncClient(transport=transport, base_url=options.pop("base", BASE), **options)


@asynccontextmanager
async def opened(
    backend: Any, **options: Any
) -> AsyncGenerator[tuple[Dashboard, httpx.AsyncClient]]:
    """A dashboard that is open, and a client that has its cookie."""
    async with Dashboard(backend, token=TOKEN, **options) as dashboard, client(dashboard) as http:
        welcome = await http.get(dashboard.address(BASE))
        assert welcome.status_code == 303
        yield dashboard, http
