"""What all tests share: three event loops for every async test, and the promise table.

Async tests run once on each of three loops: asyncio's own, uvloop, and the simulated loop of the
test kit, whose time is virtual. A test that needs real time, sockets, threads or processes is
marked ``real`` and runs on the first two.
"""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import promises
from tests.servers_fixtures import (
    fault_proxy,
    postgres_dsn,
    postgres_server,
    redis_server,
    redis_url,
)
from tests.tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    LoopFactory = Callable[[], asyncio.AbstractEventLoop]

__all__ = ["fault_proxy", "postgres_dsn", "postgres_server", "redis_server", "redis_url"]

# A busy machine is no failure: what takes too long is found by pytest's own timeout.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    """Keep coverage cheap where it learns nothing more."""
    config.pluginmanager.register(Tracing())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite (the test kit's own plugin may bring the seed already)."""
    group = parser.getgroup("aiopatterns suite")
    group.addoption(
        "--suite-loops",
        default="asyncio,uvloop,sim",
        help="comma-separated loops on which async tests run (default: %(default)s)",
    )
    group.addoption(
        "--write-promises",
        action="store_true",
        help="write docs/promises.md from the collected tests",
    )
    group.addoption(
        "--promises-to", default=None, help="write which tests hold which promise, as JSON"
    )
    known = {name for each in parser._groups for option in each.options for name in option.names()}
    if "--sim-seed" not in known:
        group.addoption(
            "--sim-seed", type=int, default=0, help="seed of the simulated loop (default: 0)"
        )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, LoopFactory]:
    """Give every async test its loops; ``real`` tests do without the simulated one."""
    wanted = set(config.getoption("--suite-loops").split(","))
    if item.get_closest_marker("real") is not None:
        wanted.discard("sim")
    found = {name: make for name, make in _factories(config).items() if name in wanted}
    # A `real` test asked to run on the simulated loop alone still needs a loop.
    return found or {"asyncio": asyncio.SelectorEventLoop}


def _factories(config: pytest.Config) -> dict[str, LoopFactory]:
    """All loops this machine has."""
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.SelectorEventLoop}
    if _has("uvloop"):
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    if _has("aiopatterns.testing.simloop"):
        seed = config.getoption("--sim-seed") or 0
        factories["sim"] = lambda: _sim_loop(seed)
    return factories


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _sim_loop(seed: int) -> asyncio.AbstractEventLoop:
    from aiopatterns.testing import SimLoop

    return SimLoop(seed)


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> None:
    """Fail an async test that leaves a task behind."""
    if request.node.get_closest_marker("asyncio") is not None and _has("aiopatterns.testing.leaks"):
        request.getfixturevalue("_async_leak_guard")


@pytest.fixture
async def _async_leak_guard() -> AsyncIterator[None]:
    from aiopatterns.testing import leak_guard

    async with leak_guard():
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note which collected tests hold which promise; write the page if asked."""
    promises.note(config, items)
    if config.getoption("--write-promises"):
        promises.write_page(promises.noted(config))
    if (target := config.getoption("--promises-to")) is not None:
        promises.write_report(promises.noted(config), Path(target))
