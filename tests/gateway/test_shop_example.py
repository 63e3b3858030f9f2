"""The samples: a FastAPI and an aiohttp service behind the gateway, as real processes on one Redis."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest
from aiohttp.test_utils import TestClient, TestServer

from aiopatterns import ServiceRegistry
from aiopatterns.backends import open_backend
from aiopatterns.cluster import ServiceInstance
from tests.jobs.fleet import on_one_loop

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "shop"
pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(60),
    # Results of jobs and kept prices, each with a ttl.
    pytest.mark.leaves("{ap:*", "ap:*"),
]


def example(name: str) -> ModuleType:
    """A program of the documentation, as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Fleet:
    """The processes of a shop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.processes: dict[str, subprocess.Popen[str]] = {}

    async def start(self, program: str, *argv: str, name: str) -> str:
        """Start a program; returns the line that says that it is ready."""
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *program.split(), *argv],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
            env={**os.environ, "SHOP": self.url, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.processes[name] = process
        assert process.stdout is not None
        line = await anyio.to_thread.run_sync(process.stdout.readline)
        assert line, process.communicate()
        return line

    async def stop(self, name: str) -> None:
        """End one by SIGTERM: it has to have nothing to complain about."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        out, err = await anyio.to_thread.run_sync(partial(process.communicate, timeout=20))
        assert (process.returncode, err) == (0, ""), (name, out, err)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.communicate()

    def end(self) -> None:
        for name in [*self.processes]:
            self.kill(name)


@asynccontextmanager
async def shop(redis_url: str) -> AsyncGenerator[tuple[Fleet, httpx.AsyncClient]]:
    """Two instances of each service, the gateway, and a client before it."""
    fleet = Fleet(redis_url)
    try:
        async with anyio.create_task_group() as tasks:
            for kind, name in (("aiohttp", "catalogue"), ("fastapi", "orders")):
                for each in (f"{name}-1", f"{name}-2"):
                    program = str(EXAMPLES / f"{name}_{kind}.py")
                    tasks.start_soon(partial(fleet.start, program, redis_url, each, name=each))
        file = str(EXAMPLES / "gateway.toml")
        line = await fleet.start("-m aiopatterns gateway", file, "--port", "0", name="gateway")
        async with httpx.AsyncClient(base_url=line.split()[2].rstrip(","), timeout=15) as client:
            yield fleet, client
    finally:
        fleet.end()


async def confirmed(client: httpx.AsyncClient, order: str) -> str:
    """What became of an order, once it is done."""
    with anyio.fail_after(20):
        while True:
            answer = await client.get(f"/orders/{order}")
            if answer.status_code == 200 and answer.json()["status"] == "done":
                return str(answer.json()["confirmed"])
            await anyio.sleep(0.05)


@pytest.mark.promise("gateway-sigterm")
@pytest.mark.promise("gateway-killed-instance")
@pytest.mark.promise("gateway-disconnects")
@on_one_loop
async def test_a_shop_loses_nothing_by_kills_departures_and_clients_that_go(redis_url: str) -> None:
    answers: dict[str, int] = {}
    gone: list[str] = []

    async with shop(redis_url) as (fleet, client):
        going = True

        async def buy(customer: int) -> None:
            number = 0
            while going:
                number += 1
                order = f"{customer}-{number}"
                answer = await client.put(f"/orders/{order}", params={"item": "tea"})
                answers[order] = answer.status_code
                await anyio.sleep(0.01)

        async def leave_early() -> None:
            number = 0
            while going:
                number += 1
                with anyio.move_on_after(0.002 * (1 + number % 5)) as patience:
                    await client.put(f"/orders/gone-{number}", params={"item": "tea"})
                if patience.cancelled_caught:
                    gone.append(f"gone-{number}")
                await anyio.sleep(0.01)

        async with anyio.create_task_group() as tasks:
            for customer in range(4):
                tasks.start_soon(buy, customer)
            tasks.start_soon(leave_early)
            await anyio.sleep(0.5)
            fleet.kill("orders-1")
            await anyio.sleep(0.3)
            fleet.kill("catalogue-1")
            await anyio.sleep(0.3)
            name = str(EXAMPLES / "orders_fastapi.py")
            await fleet.start(name, redis_url, "orders-3", name="orders-3")
            await fleet.stop("orders-2")
            await anyio.sleep(0.3)
            going = False
        assert set(answers.values()) == {202}, answers
        for order in answers:
            assert await confirmed(client, order) == f"{order}: tea for 3"
        assert gone
        for order in gone:  # begun and done, or never heard of
            if (await client.get(f"/orders/{order}")).status_code != 404:
                assert await confirmed(client, order) == f"{order}: tea for 3"
        for name in ("gateway", "orders-3", "catalogue-2"):
            await fleet.stop(name)


@on_one_loop
async def test_what_the_shop_says(redis_url: str) -> None:
    async with shop(redis_url) as (fleet, client):
        first = await client.get("/products/tea", headers={"X-Request-ID": "visit-17"})
        again = await client.get("/products/tea")
        assert first.json() == again.json() == {"item": "tea", "price": 3}
        assert first.headers["X-Request-ID"] == "visit-17"
        assert again.headers["Cache-Status"] == "aiopatterns; hit"
        assert (await client.get("/products/gold")).status_code == 404
        assert (await client.put("/orders/1", params={"item": "gold"})).status_code == 404
        reminder = await client.post("/products/tea/reminders", params={"mail": "ann@example.org"})
        assert reminder.status_code == 202
        with anyio.fail_after(10):
            path = f"/reminders/{reminder.json()['id']}"
            while (await client.get(path)).json()["status"] != "done":
                await anyio.sleep(0.02)
        assert (await client.get("/elsewhere")).status_code == 404
        for name in [*fleet.processes]:
            await fleet.stop(name)


@pytest.mark.promise("gateway-two-lifespans")
async def test_two_lifespans_in_one_process_and_two_at_once(redis_url: str) -> None:
    orders, catalogue = example("orders_fastapi"), example("catalogue_aiohttp")

    async def visit(name: str) -> Any:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(open_backend(redis_url))
            registry = await stack.enter_async_context(ServiceRegistry(backend, propagation=0))
            server = TestServer(catalogue.application(backend))
            await stack.enter_async_context(TestClient(server))
            assert server.port is not None
            instance = ServiceInstance("catalogue", "127.0.0.1", server.port, id=name)
            await stack.enter_async_context(registry.register(instance))
            app = orders.application(backend, registry)
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
            client = await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://shop")
            )
            assert (await client.put(f"/orders/{name}", params={"item": "oil"})).status_code == 202
            assert await confirmed(client, name) == f"{name}: oil for 7"

    for name in ("one", "two"):
        await visit(name)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit, "three")
        tasks.start_soon(visit, "four")
