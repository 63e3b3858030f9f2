from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.publishing import published
from aiopatterns.core.clock import sleep
from aiopatterns.core.codec import JSON
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.core.rate import Rate
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.dashboard.notices import LOG, Notice
from aiopatterns.dashboard.publisher import PublisherStatistics, StatisticsPublisher
from aiopatterns.data.saga import Saga
from aiopatterns.data.sagastore import MemorySagaStore
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.ratelimit import TokenBucket
from aiopatterns.testing import simulate


@dataclass(frozen=True, slots=True)
class Happened(Event):
    name: ClassVar[str] = "aiopatterns.test.happened"

    what: str
    password: str = "geheim"


@dataclass(frozen=True, slots=True)
class Quiet(Event):
    name: ClassVar[str] = "aiopatterns.test.quiet"
    level: ClassVar[str] = "debug"


async def test_owners_are_seen_by_others():
    backend = open_backend("memory://")
    breaker, limiter = CircuitBreaker("payments"), TokenBucket(Rate(5))
    publisher = StatisticsPublisher(backend, breaker, named={"api": limiter}, events=False)
    async with backend:
        for _ in range(2):
            async with publisher:
                await sleep(0.05)
                assert not listening()
            found = {
                (each.kind, each.name): each.figures or {} for each in await published(backend)
            }
            assert found["breaker", "payments"]["state"] == "closed"
            assert found["limiter", "api"]["limit"] == 5
        assert publisher.statistics() == PublisherStatistics(owners=2, forwarded=0, dropped=0)


def test_figures_are_renewed_and_a_saga_is_read():
    async def run():
        backend = open_backend("memory://")
        breaker = CircuitBreaker("payments")
        saga: Saga = Saga("checkout", MemorySagaStore())

        @saga.step
        async def pay(context: dict[str, str]) -> None: ...

        async with backend, StatisticsPublisher(backend, breaker, saga):
            await sleep(1)
            breaker.open()
            await sleep(4)
            found = {each.kind: each.figures or {} for each in await published(backend)}
        assert found["breaker"]["state"] == "open"
        assert found["saga"]["flows"][0]["name"] == "checkout"

    simulate(run)


def test_events_are_forwarded_without_secrets():
    async def run():
        backend, lines = open_backend("memory://"), list[Notice]()
        publisher = StatisticsPublisher(backend)
        async with backend, backend.pubsub.subscribe(LOG) as messages, publisher:
            emit(Quiet())
            emit(Happened("x"))
            await sleep(1.5)
            lines.append(JSON.decoder(Notice)((await anext(messages)).data))
            for number in range(80):
                emit(Happened(f"{number}"))
            await sleep(1)
            emit(Happened("later"))
            await sleep(1)
        assert not listening()
        return lines[0], publisher.statistics()

    line, figures = simulate(run)
    assert (line.level, line.event) == ("info", "test.happened")
    assert line.text == "what='x', password=***"
    assert figures == PublisherStatistics(owners=0, forwarded=52, dropped=30)


def test_an_outage_drops_lines_and_ends_nothing():
    async def run():
        backend = open_backend("memory://")
        publisher = StatisticsPublisher(backend)

        class Away:
            async def publish_many(self, notices):
                raise BackendUnavailableError("away")

        async with publisher:
            publisher.backend = SimpleNamespace(pubsub=Away())
            emit(Happened("lost"))
            await sleep(2)
            publisher.backend = backend
            emit(Happened("told"))
            await sleep(2)
        return publisher.statistics()

    assert simulate(run) == PublisherStatistics(owners=0, forwarded=1, dropped=1)


@pytest.mark.real
async def test_a_backend_that_is_away_at_the_beginning_is_an_error():
    publisher = StatisticsPublisher("redis://127.0.0.1:1")
    with pytest.raises(BackendUnavailableError):
        async with publisher:
            raise AssertionError
    assert not listening()


async def test_it_is_opened_once():
    async with StatisticsPublisher("memory://") as publisher:
        with pytest.raises(RuntimeError, match="open already"):
            await publisher.__aenter__()


def test_bad_values_are_named():
    with pytest.raises(TypeError, match="owners must have statistics"):
        StatisticsPublisher("memory://", 1)
    with pytest.raises(ValueError, match="name must"):
        StatisticsPublisher("memory://", named={"": TokenBucket(Rate(1))})
