from __future__ import annotations

import gc

import anyio
import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.cache.aside import Cache
from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.cluster.peer import PeerNode
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.cluster.transport import MemoryNetwork, MemoryTransport
from aiopatterns.core.clock import sleep
from aiopatterns.core.rate import Rate
from aiopatterns.dashboard.subjects import Subject, kind_of
from aiopatterns.data.saga import Saga
from aiopatterns.data.sagastore import MemorySagaStore
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.ratelimit import GCRA, SlidingWindow, TokenBucket
from aiopatterns.testing import simulate


class MyOwner:
    name = "mine"

    def statistics(self):
        return {"done": 3}


def test_a_breaker_has_a_state():
    subject = Subject(CircuitBreaker("payments"))
    assert (subject.kind, subject.name, subject.watched) == ("breaker", "payments", False)
    assert subject.figures()["state"] == "closed"


@pytest.mark.parametrize("limiter", [TokenBucket, GCRA, SlidingWindow])
def test_a_limiter_tells_what_is_left_and_needs_a_name(limiter):
    one = limiter(Rate(5, per=1.0))
    with pytest.raises(TypeError, match="name"):
        Subject(one)

    async def spend():
        one.try_acquire()
        return Subject(one, "api").figures()

    figures = simulate(spend)
    assert figures["limit"] == 5
    assert figures["available"] + figures["held"] == 5


async def test_others_tell_their_statistics():
    assert Subject(MyOwner()).figures() == {"done": 3}
    cache: Cache[str, int] = Cache("users", ttl=60)
    async with cache:
        subject = Subject(cache)
        assert subject.kind == "cache"
        assert subject.figures()["hits"] == 0
    assert kind_of(MyOwner()) == "my_owner"


async def test_a_registry_names_its_services():
    async with ServiceRegistry(open_backend("memory://"), propagation=0) as registry:
        async with registry.register(ServiceInstance("users", "10.0.0.1", 80)):
            async with registry.watch("orders"):
                assert Subject(registry).figures()["services"] == ["orders", "users"]
        assert "connected" in Subject(registry).figures()


async def test_a_peer_tells_its_members():
    network = MemoryNetwork()
    async with PeerNode("a", transport=MemoryTransport(network), seeds=[]) as node:
        figures = Subject(node).figures()
        assert list(figures["members"]) == ["a"]
        assert figures["alive"] == 1
    assert Subject(node).figures() == {}, "closed it has no members"


async def test_flows_come_as_pictures():
    dag = Dag("etl")
    dag.add(sleep, id="one", args={"seconds": 0})
    (flow,) = Subject(dag).figures()["flows"]
    assert flow["nodes"] == [{"id": "one", "state": "pending", "label": "one"}]
    run = Pipeline([1], name="line").map(sleep).open()
    assert Subject(run).figures() == {}, "it was never opened"
    async with run:
        figures = Subject(run).figures()
        assert figures["flows"][0]["kind"] == "pipeline"
        assert figures["name"] == "line"


def test_a_saga_is_read_from_its_store(monkeypatch):
    async def run():
        saga: Saga = Saga("checkout", MemorySagaStore())

        @saga.step
        async def pay(context: dict[str, str]) -> None: ...

        subject = Subject(saga)
        assert subject.watched
        assert subject.figures()["flows"] == []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subject.watch)
            await sleep(1)
            assert subject.figures()["flows"][0]["kind"] == "saga"

            async def fail(self, saga, *, limit):
                raise OSError

            monkeypatch.setattr(MemorySagaStore, "unfinished", fail)
            await sleep(2)
            assert subject.figures()["flows"] == []
            monkeypatch.undo()
            await sleep(2)
            assert subject.figures()["flows"]
            tasks.cancel_scope.cancel()

    simulate(run)


def test_a_queue_tells_its_parts():
    subject = Subject(JobQueue("mail", "memory://", partitions=4))
    assert (subject.kind, subject.figures()) == ("queue", {"partitions": 4})


class NoStatistics:
    name = "x"


class Waiting:
    name = "x"

    async def statistics(self): ...


class Nameless:
    def statistics(self): ...


class Odd:
    name = "x"

    def statistics(self):
        return object()


class Plain:
    name = "x"

    def statistics(self):
        return 7


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        (NoStatistics(), "statistics"),
        (Waiting(), "statistics"),
        (Nameless(), "name"),
        (7, "statistics"),
    ],
)
def test_what_cannot_be_published_is_refused(owner, words):
    with pytest.raises(TypeError, match=f"owners must have.*{words}"):
        Subject(owner)
    gc.collect()
    with pytest.raises(ValueError, match="name"):
        Subject(MyOwner(), "")


def test_figures_are_plain_data_or_none():
    assert Subject(Odd()).figures() == {}
    assert Subject(Plain()).figures() == {"value": 7}
