from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, cast

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.publishing import (
    DIRECTORY,
    INTERVAL,
    MAX_BYTES,
    TTL,
    Publisher,
    published,
)
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.testing import simulate


@dataclass(frozen=True, slots=True)
class Figures:
    done: int
    text: str = ""


def test_figures_are_there_while_their_owner_lives_and_gone_after_the_ttl():
    async def main() -> None:
        done = 0
        async with open_backend("memory://") as backend:
            publisher = Publisher(backend, kind="worker", name="q", figures=lambda: Figures(done))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publisher.run)
                await sleep(0.1)
                (one,) = await published(backend)
                assert (one.kind, one.name, one.pid) == ("worker", "q", os.getpid())
                assert one.figures == {"done": 0, "text": ""}
                assert one.at >= one.started_at > 0
                done, before = 5, one.at
                await sleep(INTERVAL)
                (one,) = await published(backend, kind="worker")
                assert one.figures is not None
                assert one.figures["done"] == 5
                assert one.at == pytest.approx(before + INTERVAL)
                assert await published(backend, kind="pool") == []
                tasks.cancel_scope.cancel()
            await sleep(TTL)
            assert await published(backend) == []

    simulate(main)


@pytest.mark.parametrize(
    "figures",
    [lambda: Figures(1, "x" * MAX_BYTES), lambda: Figures(cast("Any", object()))],
    ids=["long", "no data"],
)
def test_figures_that_are_too_long_or_no_data_are_left_out(figures):
    async def main() -> None:
        async with open_backend("memory://") as backend:
            publisher = Publisher(backend, kind="worker", name="q", figures=figures)
            with anyio.move_on_after(0.1):
                await publisher.run()
            (one,) = await published(backend)
            assert one.figures is None

    simulate(main)


def test_an_outage_is_waited_out():
    class Away:
        calls = 0

        def directory(self, name):
            assert name == DIRECTORY
            return self

        async def put(self, member, data, *, ttl):
            self.calls += 1
            raise BackendUnavailableError("away")

    async def main() -> None:
        away = Away()
        publisher = Publisher(
            cast("Any", away), kind="worker", name="q", figures=lambda: Figures(1)
        )
        with anyio.move_on_after(INTERVAL * 2.5):
            await publisher.run()
        assert away.calls == 3

    simulate(main)


async def test_what_cannot_be_read_is_left_out():
    async with open_backend("memory://") as backend:
        await backend.directory(DIRECTORY).put("odd", b"\xff", ttl=5)
        assert await published(backend) == []


@pytest.mark.promise("backends-bad-input")
async def test_bad_input():
    backend = open_backend("memory://")
    with pytest.raises(TypeError, match="figures"):
        Publisher(backend, kind="worker", name="q", figures=cast("Any", 5))
    with pytest.raises(ValueError, match="kind"):
        Publisher(backend, kind="", name="q", figures=list)
    with pytest.raises(ValueError, match="name"):
        Publisher(backend, kind="worker", name="", figures=list)


@pytest.mark.real
async def test_in_redis(redis_url):
    async with open_backend(redis_url) as backend:
        publisher = Publisher(backend, kind="worker", name="q", figures=lambda: Figures(1))
        with anyio.move_on_after(0.1):
            await publisher.run()
        (one,) = await published(backend)
        assert one.figures == {"done": 1, "text": ""}
