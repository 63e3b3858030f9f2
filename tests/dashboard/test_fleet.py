from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.publishing import DIRECTORY, Published
from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.dashboard.fleet import Fleet
from aiopatterns.dashboard.publisher import StatisticsPublisher
from aiopatterns.dashboard.queues import Queues
from aiopatterns.flow.dag import Dag
from aiopatterns.jobs.bulk import JobFilter
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.worker import Worker
from aiopatterns.messaging.consumer import StreamConsumer
from aiopatterns.messaging.stream import Stream
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.testing import simulate


async def everything(backend) -> None:
    """What all backends must show of one of each."""
    jobs, idle = JobQueue("mail", backend, partitions=2), JobQueue("idle", backend)
    dag = Dag("etl")
    dag.add(sleep, id="one", args={"seconds": 0})
    stream = Stream("orders", backend)
    registry = ServiceRegistry(backend, propagation=0)

    @jobs.job(retry=None)
    async def send(to: str) -> None:
        if to == "bad":
            raise ValueError(to)

    async with AsyncExitStack() as stack:
        for each in (backend, jobs, idle, Worker(jobs, grace=0), stream, registry):
            await stack.enter_async_context(each)
        consumer = await stack.enter_async_context(StreamConsumer(stream, group="billing"))
        user = ServiceInstance("users", "10.0.0.1", 80, id="u1", zone="a", version="2")
        await stack.enter_async_context(registry.register(user))
        owners = (CircuitBreaker("payments"), dag, idle, registry, consumer)
        await stack.enter_async_context(StatisticsPublisher(backend, *owners))
        await send.enqueue("good")
        await send.enqueue("bad")
        await send.using(delay=600).enqueue("late")
        fleet, seen = Fleet(backend, Queues(backend), actions=True), None
        until = monotonic() + 20
        while seen is None or len(seen.owners) < 5 or not seen.queues or seen.queues[-1].dead < 1:
            assert monotonic() < until, seen
            await sleep(0.05)
            seen = await fleet.look()
        assert seen.actions
        assert seen.backend == backend.url
        assert [each.name for each in seen.queues] == ["idle", "mail"]
        mail = seen.queues[1]
        assert (mail.queued, mail.scheduled, mail.dead, mail.workers) == (0, 1, 1, 1)
        (worker,) = seen.workers
        assert (worker.name, worker.age >= 0) == ("mail", True)
        kinds = [each.kind for each in seen.owners]
        assert kinds == ["breaker", "consumer", "dag", "queue", "registry"]
        assert all("flows" not in each.figures for each in seen.owners)
        (service,) = seen.services
        (one,) = service.instances
        assert (one.id, one.host, one.port) == ("u1", "10.0.0.1", 80)
        assert (one.state, one.zone, one.version, one.stale) == ("ready", "a", "2", False)
        (group,) = seen.streams
        assert (group.name, group.group, group.lag, group.pending) == ("orders", "billing", 0, 0)
        (flow,) = seen.flows
        assert (flow.kind, flow.name) == ("dag", "etl")
        await jobs.purge()
        await jobs.cancel(JobFilter())


async def test_all_that_runs_in_memory_is_shown():
    await everything(open_backend("memory://"))


@pytest.mark.real
@pytest.mark.leaves("{ap:log:orders}:*")
async def test_all_that_runs_over_redis_is_shown(redis_url):
    await everything(open_backend(redis_url))


def published(
    kind: str, name: str = "x", number: str = "1", at: float = 0.0, **figures: Any
) -> tuple[str, bytes]:
    who = Published(
        kind=kind, name=name, host="h", pid=1, number=number, started_at=0.0, figures=figures, at=at
    )
    return f"{kind}/{name}/{number}", MSGPACK.encode(who)


def looked(*members, looks=1, step=None):
    """What is seen of what others have published, in virtual time."""

    async def run():
        async with open_backend("memory://") as backend:
            fleet = Fleet(backend, Queues(backend), actions=False)
            seen = await fleet.look()
            for number in range(looks):
                given = members if step is None else step(number)
                for member, data in given:
                    await backend.directory(DIRECTORY).put(member, data, ttl=600)
                seen = await fleet.look()
                await sleep(1)
            return seen

    return simulate(run)


def test_nothing_is_there():
    seen = looked()
    assert not [*seen.queues, *seen.workers, *seen.owners, *seen.services, *seen.flows]


WEIRD: list[tuple[str, bytes]] = [
    ("a", b"no record"),
    published("worker", number="1", queues=7),
    published("worker", number="2", queues={"q": 3}, p50="slow", p99=[]),
    published("worker", number="3", queues={"q": {"processed": "many"}}),
    published("dag", number="4", flows="none"),
    published("dag", number="5", flows=[{"kind": 1}]),
    published("registry", number="6", services="users"),
    published("registry", number="7", services=[1, "", "bad name", None, "x" * 300]),
    published("consumer", name="no-group", in_hand=3),
    published("consumer", name="no/group", in_hand="many"),
    published("queue", name="r", partitions="several"),
]


def test_what_others_have_written_wrongly_is_left_out():
    seen = looked(*WEIRD)
    assert [each.name for each in seen.queues] == ["q", "r"]
    assert len(seen.workers) == 3
    assert len(seen.owners) == 7
    assert not [*seen.services, *seen.flows, *seen.streams]


def test_a_record_that_cannot_be_read_is_an_instance_that_is_unknown():
    async def run():
        async with open_backend("memory://") as backend:
            await backend.directory(DIRECTORY).put(
                *published("registry", services=["users"]), ttl=600
            )
            await backend.directory("svc:users").put("u1", b"nonsense", ttl=600)
            return await Fleet(backend, Queues(backend), actions=False).look()

    (service,) = simulate(run).services
    (one,) = service.instances
    assert (one.id, one.state, one.stale) == ("u1", "unknown", True)


def test_paces_and_quantiles_are_those_of_all_workers():
    def step(number):
        done = 100 * number
        slow: dict[str, Any] = {"queues": {"q": {"processed": done}}, "p50": 1.0, "p99": 2.0}
        fast: dict[str, Any] = {"queues": {"q": {"processed": 3 * done}}, "p50": 0.2, "p99": 9.0}
        at = float(number)
        return [
            published("worker", number="1", at=at, **slow),
            published("worker", number="2", at=at, **fast),
        ]

    (queue,) = looked(looks=8, step=step).queues
    assert queue.throughput == pytest.approx(400)
    assert queue.p50 == pytest.approx(0.4)
    assert queue.p99 == 9.0


def test_much_is_cut():
    members = [published("breaker", number=f"{number}") for number in range(300)]
    members += [published("worker", number=f"{number}") for number in range(300)]
    seen = looked(*members)
    assert len(seen.owners) == len(seen.workers) == 200


FIELDS = st.sampled_from(
    ("queues", "processed", "p50", "p99", "flows", "services", "partitions", "in_hand", "state")
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(FIELDS | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.untraced
@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("worker", "queue", "registry", "consumer", "dag", "x")),
            st.sampled_from(("", "a", "a/b", "/", "a b", "x" * 2_000, "é", "\x00")),
            st.dictionaries(FIELDS, PLAIN, max_size=4),
        ),
        max_size=4,
    )
)
def test_whatever_is_published_is_looked_at(given):
    members = [
        published(kind, name, number=f"{at}", **figures)
        for at, (kind, name, figures) in enumerate(given)
    ]
    members = [(f"{at}", data) for at, (_, data) in enumerate(members)]
    seen = looked(*members, looks=2)
    assert len(seen.workers) + len(seen.owners) == len(given)
    assert msgspec.json.encode(seen)
