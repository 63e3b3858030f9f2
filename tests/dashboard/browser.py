"""A headless Chromium, servers in threads, and a visit that takes note of all that must not happen."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

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
        self._server = uvicorn.Server(config)
        up = threading.Event()
        startup = self._server.startup

        async def started(*args: Any, **options: Any) -> None:
            await startup(*args, **options)
            up.set()

        self._server.startup = started  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        assert up.wait(10)
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


@contextmanager
def visit(
    browser: Browser, url: str, *, wide: int = 1280, scheme: str = "light", expected: str = ""
) -> Iterator[Page]:
    """Open a page; at the end nothing was refused, thrown, popped up or asked of another host.

    Args:
        browser: The browser.
        url: The address.
        wide: Pixels across.
        scheme: ``light`` or ``dark``.
        expected: What console errors may say; empty: there must be none.
    """
    context = browser.new_context(
        viewport={"width": wide, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"thrown: {error}"))
    page.on("dialog", lambda dialog: wrong.append(f"popped up: {dialog.message}"))
    page.on(
        "request",
        lambda request: (
            request.url.startswith(url.partition("?")[0].rstrip("/"))
            or wrong.append(f"asked for: {request.url}")
        ),
    )
    page.on(
        "console",
        lambda message: (
            message.type in {"error", "warning"}
            and not (expected and expected in message.text)
            and wrong.append(f"console: {message.text}")
        ),
    )
    page.goto(url)
    page.wait_for_selector("#link.live")
    try:
        yield page
    finally:
        context.close()
    assert not wrong
