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

    from playwright.sync_api import ConsoleMessage, Dialog, Error, Page, Request

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
    # Where Debian has it, too: a stripped PATH need not name that folder.
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/bin"))
    found = next(filter(None, (shutil.which(each, path=path) for each in PROGRAMS)), None)
    if found is None:
        why = "no Chromium here: the pages of the dashboard are not tested"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return found


@contextmanager
def chromium() -> Iterator[Page]:
    """Start the browser, with one page: another one would cost as much as all that is done on it."""
    path = program()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(PATIENCE)
        yield page
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
            self._app, port=self.port, log_level="critical", timeout_graceful_shutdown=0
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
        home: Where all its requests have to go.
        expected: What console errors may say; empty: there must be none.
    """

    def __init__(self, home: str, expected: str) -> None:
        self.wrong: list[str] = []
        self._home = home
        self._expected = expected

    @contextmanager
    def open(self, page: Page) -> Iterator[None]:
        page.on("pageerror", self._thrown)
        page.on("dialog", self._popped)
        page.on("request", self._asked)
        page.on("console", self._said)
        yield
        page.remove_listener("pageerror", self._thrown)
        page.remove_listener("dialog", self._popped)
        page.remove_listener("request", self._asked)
        page.remove_listener("console", self._said)

    def _thrown(self, error: Error) -> None:
        self.wrong.append(f"thrown: {error}")

    def _popped(self, dialog: Dialog) -> None:
        self.wrong.append(f"popped up: {dialog.message}")
        dialog.dismiss()

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(self._home):
            self.wrong.append(f"asked for: {request.url}")

    def _said(self, message: ConsoleMessage) -> None:
        forgiven = self._expected and self._expected in message.text
        if message.type in {"error", "warning"} and not forgiven:
            self.wrong.append(f"console: {message.text}")


@contextmanager
def visit(
    page: Page,
    url: str,
    *,
    wide: int = 1280,
    scheme: Literal["light", "dark"] = "light",
    expected: str = "",
) -> Iterator[None]:
    """Open a dashboard; at the end nothing was refused, thrown, popped up or asked of another host.

    Args:
        page: Where.
        url: The address.
        wide: Pixels across.
        scheme: What the person prefers.
        expected: What console errors may say; empty: there must be none.
    """
    home = url.partition("?")[0].rstrip("/")
    page.set_viewport_size({"width": wide, "height": 900})
    page.emulate_media(color_scheme=scheme)
    notebook = Notebook(home, expected)
    with notebook.open(page):
        page.goto(url)
        page.evaluate("localStorage.clear()")
        page.wait_for_selector("#link.live")
        try:
            yield
        finally:
            page.goto(f"{home}/static/icon.svg")  # which ends the stream
    assert not notebook.wrong
