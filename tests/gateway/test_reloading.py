"""A gateway that reads its file again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from aiopatterns.core.errors import ConfigError
from aiopatterns.core.telemetry import Event
from aiopatterns.gateway import (
    Gateway,
    GatewayReloaded,
    GatewayReloadFailed,
    load_config,
    reload_on_hangup,
)
from aiopatterns.testing import capture_events

pytestmark = pytest.mark.real


def write(file: Path, *paths: str) -> None:
    file.write_text(
        "\n".join(f'[[routes]]\npath = "{path}"\nto = "http://127.0.0.1:9"' for path in paths)
    )


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.01)


async def hung_up(gateway: Gateway, events: list[Event], count: int) -> None:
    """Send a signal, and wait until so many reloads have been told."""
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: sum(isinstance(each, _TOLD) for each in events) == count)


_TOLD = (GatewayReloaded, GatewayReloadFailed)


async def test_a_hangup_puts_the_file_in_force_or_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    write(file, "/a")
    config = load_config(file)
    gateway = Gateway.of(config)
    before = signal.getsignal(signal.SIGHUP)
    with capture_events() as events:
        async with gateway, anyio.create_task_group() as tasks:
            await tasks.start(reload_on_hangup, gateway, config)
            write(file, "/a", "/b")
            await hung_up(gateway, events, 1)
            assert [each.path for each in gateway.routes] == ["/a", "/b"]
            write(file, "/c", "/c")
            await hung_up(gateway, events, 2)
            assert [each.path for each in gateway.routes] == ["/a", "/b"]
            file.unlink()
            await hung_up(gateway, events, 3)
            assert [each.path for each in gateway.routes] == ["/a", "/b"]
            write(file, "/d")
            await hung_up(gateway, events, 4)
            assert [each.path for each in gateway.routes] == ["/d"]
            tasks.cancel_scope.cancel()
    told = [each for each in events if isinstance(each, _TOLD)]
    assert [type(each) for each in told] == [
        GatewayReloaded,
        GatewayReloadFailed,
        GatewayReloadFailed,
        GatewayReloaded,
    ]
    wrong, missing = told[1:3]
    assert isinstance(wrong, GatewayReloadFailed)
    assert isinstance(wrong.error, ConfigError)
    assert isinstance(missing, GatewayReloadFailed)
    assert isinstance(missing.error, FileNotFoundError)
    assert (wrong.gateway, wrong.level) == ("gateway", "error")
    assert signal.getsignal(signal.SIGHUP) == before


async def test_what_a_file_says_anew_keeps_what_it_knows(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    write(file, "/a")
    config = load_config(file)
    gateway = Gateway.of(config)
    (route,) = gateway.routes
    with capture_events() as events:
        async with gateway, anyio.create_task_group() as tasks:
            await tasks.start(reload_on_hangup, gateway, config)
            write(file, "/a", "/b")
            await hung_up(gateway, events, 1)
            tasks.cancel_scope.cancel()
    assert gateway.routes[0].policy is route.policy
