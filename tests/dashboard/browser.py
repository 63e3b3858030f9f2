"""A headless Chromium, servers in threads, and a visit that takes note of all that must not happen."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest
import uvicorn
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Milliseconds until the page has to have come to something.
PATIENCE = 15_000


def program() -> str:
    """Return the browser; skip without one, but under CI fail."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        why = "no Chromium here: the pages of the dashboard are not tested"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser."""
    path = program()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Server(uvicorn.Server):
    """A server that says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class Served:
    """A server in a thread of its own, which can go and come back at its address."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = uvicorn.Config(
            self._app, port=self.port, log_level="critical", timeout_graceful_shutdown=1
        )
        self._server = Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        assert self._server.up.wait(10)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def served(app: Any) -> Iterator[Served]:
    """Serve an application."""
    server = Served(app)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Notebook:
    """What a page has done that it must not do.

    Args:
        page: The page.
        home: Where all its requests have to go.
        expected: What console errors may say; empty: there must be none.
    """

    def __init__(self, page: Page, home: str, expected: str) -> None:
        self.wrong: list[str] = []
        self._home = home
        self._expected = expected
        page.on("pageerror", lambda error: self.wrong.append(f"thrown: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"popped up: {dialog.message}"))
        page.on("request", self._asked)
        page.on("console", self._said)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(self._home):
            self.wrong.append(f"asked for: {request.url}")

    def _said(self, message: ConsoleMessage) -> None:
        forgiven = self._expected and self._expected in message.text
        if message.type in {"error", "warning"} and not forgiven:
            self.wrong.append(f"console: {message.text}")


@contextmanager
def visit(
    browser: Browser,
    url: str,
    *,
    wide: int = 1280,
    scheme: Literal["light", "dark"] = "light",
    expected: str = "",
) -> Iterator[Page]:
    """Open a page; at the end nothing was refused, thrown, popped up or asked of another host.

    Args:
        browser: The browser.
        url: The address.
        wide: Pixels across.
        scheme: What the person prefers.
        expected: What console errors may say; empty: there must be none.
    """
    context = browser.new_context(
        viewport={"width": wide, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    notebook = Notebook(page, url.partition("?")[0].rstrip("/"), expected)
    try:
        page.goto(url)
        page.wait_for_selector("#link.live")
        yield page
    finally:
        context.close()
    assert not notebook.wrong
