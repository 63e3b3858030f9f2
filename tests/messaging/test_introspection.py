"""Introspection: PING, INFO and STATS, of a service and of one replica."""

from __future__ import annotations

import pytest

from aiopatterns import Broker, NoHandlersError, RemoteError, Service
from aiopatterns.backends import open_backend
from aiopatterns.messaging.introspection import ping_topic


def service() -> Service:
    users = Service("users", version="1.2.0")

    @users.query("user.get", concurrency=4)
    async def get(payload: int) -> int:
        return 100 // payload

    @users.event("order.*")
    async def note(payload: object) -> None: ...

    @users.every(60)
    async def tidy() -> None: ...

    return users


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def brokers(request):
    """Return a function that makes brokers as of several processes."""
    if request.param == "memory":
        backend = open_backend("memory://")
        return lambda: Broker(backend)
    url = request.getfixturevalue("redis_url")
    return lambda: Broker(url)


@pytest.mark.promise("messaging-service-introspection")
async def test_a_service_tells_who_what_and_how_much(brokers):
    async with brokers() as broker, brokers() as asker:
        async with service().run(broker, propagation=0) as run:
            head = {"name": "users", "id": run.id, "version": "1.2.0", "state": "ready"}
            assert await asker.request(ping_topic("users")) == head
            assert await asker.request("$SRV.INFO.users") == head | {
                "needs": [],
                "handlers": [
                    {
                        "name": "get",
                        "kind": "query",
                        "topic": "user.get",
                        "group": "users",
                        "concurrency": 4,
                    },
                    {
                        "name": "note",
                        "kind": "event",
                        "topic": "order.*",
                        "group": "users/note",
                        "concurrency": 64,
                    },
                    {"name": "tidy", "kind": "timer", "interval": 60},
                ],
            }
            assert await asker.request("user.get", 5) == 20
            with pytest.raises(RemoteError):
                await asker.request("user.get", 0)
            told = await asker.request("$SRV.STATS.users")
            get = told["handlers"][0]
            assert told["uptime"] >= 0
            assert (get["name"], get["calls"], get["done"], get["failed"]) == ("get", 2, 1, 1)
            assert get["last_error"].startswith("ZeroDivisionError")
            assert 0 <= get["seconds"] <= told["uptime"]


@pytest.mark.promise("messaging-service-introspection")
async def test_one_replica_can_be_asked(brokers):
    async with brokers() as one, brokers() as two:
        async with service().run(one, propagation=0) as a, service().run(two, propagation=0) as b:
            for run in (a, b):
                assert (await one.request(f"$SRV.PING.users.{run.id}"))["id"] == run.id
            asked = {(await one.request("$SRV.PING.users"))["id"] for _ in range(20)}
            assert asked <= {a.id, b.id}


async def test_there_are_no_other_verbs_and_no_other_services():
    async with Broker("memory://") as broker, service().run(broker, propagation=0):
        with pytest.raises(RemoteError, match="no handler listens on") as caught:
            await broker.request("$SRV.STOP.users")
        assert caught.value.type == "NoHandlersError"
        with pytest.raises(NoHandlersError):
            await broker.request("$SRV.PING.orders")
