"""What Prometheus is told, read back as a server would read it."""

from __future__ import annotations

import runpy
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aiopatterns.contrib import prometheus as module
from aiopatterns.contrib.prometheus import MAX_NAMES, instrument
from aiopatterns.core.errors import JobFailedError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.flow import WorkerPool
from aiopatterns.gateway.events import GatewayAnswered
from aiopatterns.jobs import JobQueue, Worker
from aiopatterns.resilience import CircuitBreaker, Constant, Retry
from aiopatterns.resilience.circuitevents import CircuitClosed, CircuitHalfOpened, CircuitRejected

Sample = tuple[str, frozenset[tuple[str, str]]]


def scraped(registry: CollectorRegistry) -> dict[Sample, float]:
    """All samples, as a parser reads the exposition."""
    text = generate_latest(registry).decode()
    return {
        (each.name, frozenset(each.labels.items())): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if not each.name.endswith("_created")
    }


def sample(name: str, /, **labels: str) -> Sample:
    return name, frozenset(labels.items())


@dataclass(frozen=True, slots=True)
class Happened(Event):
    name: ClassVar[str] = "tests.happened"
    queue: str


@pytest.mark.promise("telemetry-prometheus")
async def test_jobs_are_counted_by_what_became_of_them():
    jobs, registry = JobQueue("mails"), CollectorRegistry()

    @jobs.job(retry=Retry(OSError, attempts=2, backoff=Constant(0)))
    async def mail(to: str) -> str:
        if not to:
            raise OSError("nobody")
        return to

    with instrument(registry):
        async with jobs, Worker(jobs):
            handles = await jobs.enqueue_many([mail.job("a"), mail.job("b"), mail.job("")])
            assert await handles[0].result(timeout=5) == "a"
            assert await handles[1].result(timeout=5) == "b"
            with pytest.raises(JobFailedError):
                await handles[2].result(timeout=5)
        found = scraped(registry)
    who = {"queue": "mails", "job": "mail"}
    counts = {
        outcome: found[sample("aiopatterns_jobs_total", **who, outcome=outcome)]
        for outcome in ("started", "done", "retrying", "dead")
    }
    assert counts == {"started": 4, "done": 2, "retrying": 1, "dead": 1}
    assert found[sample("aiopatterns_job_seconds_count", **who)] == 2
    assert found[sample("aiopatterns_job_seconds_bucket", **who, le="+Inf")] == 2
    event = sample("aiopatterns_events_total", event="aiopatterns.job.dead", owner="mails")
    assert found[event] == 1
    assert not scraped(registry)


def test_answers_of_a_gateway_and_the_state_of_circuits():
    registry = CollectorRegistry()
    with instrument(registry):
        for status in (200, 200, 503):
            emit(GatewayAnswered("edge", "/api", "GET", "/api/7", "c", status, 0.02, True, "r"))
        emit(CircuitHalfOpened("db"))
        emit(CircuitRejected("db", 1.0))
        half = scraped(registry)
        emit(CircuitClosed("db"))
        found = scraped(registry)
    labels = {"gateway": "edge", "route": "/api", "method": "GET"}
    seconds = "aiopatterns_http_request_seconds_count"
    assert found[sample(seconds, **labels, status="200")] == 2
    assert found[sample(seconds, **labels, status="503")] == 1
    assert not [each for each in found if "/api/7" in str(each)]
    assert half[sample("aiopatterns_circuit_state", circuit="db")] == 1
    assert found[sample("aiopatterns_circuit_state", circuit="db")] == 0


async def test_owners_are_asked_at_each_scrape():
    registry, breaker = CollectorRegistry(), CircuitBreaker("db")

    async def nothing(item: int) -> int:
        return item

    pool = WorkerPool(nothing, workers=2)
    with instrument(registry, owners={"db": breaker, "crew": pool}):
        async with pool:
            await (await pool.submit(1))
            found = scraped(registry)
    assert found[sample("aiopatterns_circuit_breaker_state", name="db", value="closed")] == 1
    assert found[sample("aiopatterns_worker_pool_done", name="crew")] == 1


@pytest.mark.promise("telemetry-bounded")
def test_names_that_users_choose_are_bounded():
    registry = CollectorRegistry()
    with instrument(registry):
        for number in range(3 * MAX_NAMES):
            emit(Happened(f"q{number}"))
        found = scraped(registry)
    owners = {dict(labels)["owner"]: value for (_, labels), value in found.items()}
    assert len(owners) == MAX_NAMES + 1
    assert owners["other"] == 2 * MAX_NAMES


def test_twice_into_one_registry_is_refused_and_changes_nothing():
    registry = CollectorRegistry()
    with instrument(registry):
        before = scraped(registry)
        with pytest.raises(ValueError, match="Duplicated"):
            instrument(registry)
        assert scraped(registry) == before
        emit(Happened("q"))
        assert sum(scraped(registry).values()) == 1
    assert not listening()
    with instrument(registry):  # and again
        assert listening()


def test_what_is_no_owner_is_refused_before_anything_is_there():
    registry = CollectorRegistry()
    wrong: Any = [5]
    with pytest.raises(TypeError, match="owners must have a name"):
        instrument(registry, owners=wrong)
    assert not listening()
    with instrument(registry):
        assert listening()


@pytest.mark.real
async def test_everything_at_once_on_redis(redis_url: str):
    """The figures are those of a queue on a server too, and the default registry does."""
    jobs = JobQueue("orders", redis_url)

    @jobs.job
    async def pay(order: int) -> int:
        return order

    async with AsyncExitStack() as stack:
        stack.enter_context(instrument())
        await stack.enter_async_context(jobs)
        await stack.enter_async_context(Worker(jobs))
        assert await (await pay.enqueue(1)).result(timeout=10) == 1
        from prometheus_client import REGISTRY

        labels = {"queue": "orders", "job": "pay", "outcome": "done"}
        assert REGISTRY.get_sample_value("aiopatterns_jobs_total", labels) == 1
    assert REGISTRY.get_sample_value("aiopatterns_jobs_total", labels) is None


def test_a_missing_extra_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"pip install 'aiopatterns\[prometheus\]'"):
        runpy.run_path(module.__file__)
