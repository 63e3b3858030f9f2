"""The service: handlers under a name; what they get, who gets it, one contract on both backends."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from aiopatterns import (
    Broker,
    Bulkhead,
    ClosedError,
    NoHandlersError,
    RemoteError,
    Retry,
    Service,
    Timeout,
    TimeoutExceededError,
)
from aiopatterns.backends import open_backend
from aiopatterns.core.clock import sleep
from aiopatterns.core.context import bind_correlation, correlation_id, deadline
from aiopatterns.messaging import Context, ServiceState, Upcasters, command, event, every, query
from aiopatterns.messaging.callplan import BAD_PAYLOAD
from aiopatterns.messaging.endpoint import UNKNOWN_VERSION
from aiopatterns.messaging.remote import LOST
from aiopatterns.resilience import Constant

PATIENCE = 20.0


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


@dataclass
class Wanted:
    id: int


@dataclass
class User:
    id: int
    name: str


def closed() -> Broker:
    return Broker("memory://")


class UnknownUserError(LookupError):
    code = "unknown_user"


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def brokers(request):
    """Return a function that makes brokers as of several processes."""
    if request.param == "memory":
        backend = open_backend("memory://")
        return lambda **options: Broker(backend, **options)
    url = request.getfixturevalue("redis_url")
    return lambda **options: Broker(url, **options)


async def until(condition: Any) -> None:
    """Wait until ``condition()`` is true."""
    with anyio.fail_after(PATIENCE):
        while not condition():
            await sleep(0.002)


def known(*brokers: Broker) -> Any:
    """Whether brokers know each other."""
    return lambda: all(each.statistics().peers >= len(brokers) - 1 for each in brokers)


def users_service() -> Service:
    """Answers who somebody is."""
    users = Service("users", version="1.2.0")

    @users.query("user.get")
    async def get_user(wanted: Wanted) -> User:
        if wanted.id != 17:
            raise UnknownUserError(f"no user {wanted.id}")
        return User(17, "Ann")

    return users


@pytest.mark.promise("messaging-service-conformance")
async def test_a_query_is_answered_from_another_process(brokers):
    async with brokers() as here, brokers() as there:
        async with users_service().run(there, propagation=0):
            assert await here.request("user.get", {"id": 17}) == {"id": 17, "name": "Ann"}
            with pytest.raises(RemoteError) as caught:
                await here.request("user.get", {"id": 18})
            error = caught.value
            assert (error.type, error.code, error.retryable) == (
                "UnknownUserError",
                "unknown_user",
                False,
            )
        with pytest.raises(NoHandlersError):
            await here.request("user.get", {"id": 17})


@pytest.mark.promise("messaging-service-conformance")
async def test_services_ask_tell_and_hear_each_other(brokers):
    orders, mail, sent = Service("orders"), Service("mail"), list[dict[str, Any]]()

    @orders.command("order.create")
    async def create(ctx: Context, order: dict[str, Any]) -> dict[str, Any]:
        user = await ctx.request("user.get", {"id": order["user"]})
        await ctx.publish("order.created", {"user": user["name"]})
        await ctx.send("mail.count", 1)
        return {"for": user["name"]}

    @mail.event("order.*")
    async def note(ctx: Context, event: dict[str, str]) -> None:
        assert ctx.message is not None
        sent.append({"topic": ctx.message.topic, "by": ctx.correlation_id, **event})

    @mail.command("mail.count")
    async def count(ctx: Context, by: int) -> None:
        sent.append({"by": ctx.correlation_id, "count": by})

    async with brokers() as one, brokers() as two, brokers() as three, brokers() as customer:
        async with (
            users_service().run(one, propagation=0),
            orders.run(two, propagation=0),
            mail.run(three, propagation=0),
        ):
            await until(known(one, two, three, customer))
            with bind_correlation("request-7"):
                reply = await customer.request("order.create", {"user": 17})
            assert reply == {"for": "Ann"}
            await until(lambda: len(sent) == 2)
            assert {"topic": "order.created", "by": "request-7", "user": "Ann"} in sent
            assert {"by": "request-7", "count": 1} in sent
            with pytest.raises(RemoteError) as caught:
                await customer.request("order.create", {"user": 18})
            assert caught.value.code == "unknown_user"  # through the service between


@pytest.mark.promise("messaging-service-conformance")
async def test_one_replica_gets_each_and_every_handler_of_a_service_its_own(brokers):
    seen: list[tuple[str, str, int]] = []

    def replica(name: str) -> Service:
        audit = Service("audit")

        @audit.event("order.*")
        async def first(number: int) -> None:
            seen.append(("first", name, number))

        @audit.event("order.created")
        async def second(number: int) -> None:
            seen.append(("second", name, number))

        return audit

    async with brokers() as one, brokers() as two, brokers() as shop:
        async with replica("a").run(one, propagation=0), replica("b").run(two, propagation=0):
            await until(known(one, two, shop))
            await sleep(0.05)
            for number in range(20):
                await shop.publish("order.created", number)
            await until(lambda: len(seen) >= 40)
    for handler in ("first", "second"):
        assert sorted(n for which, _, n in seen if which == handler) == list(range(20))
    assert {name for _, name, _ in seen} == {"a", "b"}


@pytest.mark.promise("messaging-service-conformance")
async def test_who_hears_events_never_gets_what_is_sent_or_asked(brokers):
    audit, heard = Service("audit"), list[Any]()  # before "users" in the order of names

    @audit.event("user.get")
    @audit.event(">")
    async def note(payload: Any) -> str:
        heard.append(payload)
        return "audited"

    async with brokers() as one, brokers() as two:
        async with audit.run(one, propagation=0):
            for call in (two.request, two.send):
                with pytest.raises(NoHandlersError):
                    await call("user.get", {"id": 17})
            async with users_service().run(two, propagation=0):
                assert await two.request("user.get", {"id": 17}) == {"id": 17, "name": "Ann"}
                await two.send("user.get", {"id": 17})  # one group handles it
            assert heard == []
            await two.publish("user.get", {"id": 18})
            await until(lambda: len(heard) == 2)


@pytest.mark.promise("messaging-service-payload")
@pytest.mark.parametrize(
    "payload", [None, 17, "x", [], {}, {"id": "17"}, {"id": None}, b"\xff", {"id": {"$gt": 0}}]
)
async def test_a_payload_that_does_not_fit_is_told_and_the_handler_is_not_called(brokers, payload):
    async with brokers() as broker, users_service().run(broker, propagation=0) as run:
        with pytest.raises(
            RemoteError, match="not what 'get_user' of service 'users' takes"
        ) as why:
            await broker.request("user.get", payload)
        assert (why.value.type, why.value.code, why.value.retryable) == (
            "CodecError",
            BAD_PAYLOAD,
            False,
        )
        assert (await broker.request("user.get", {"id": 17}))["name"] == "Ann"
        figures = run.statistics().handlers["get_user"]
        assert (figures.calls, figures.done, figures.failed) == (2, 1, 1)


@pytest.mark.promise("messaging-service-calls")
@pytest.mark.promise("messaging-upcasters-wired")
async def test_old_messages_are_handled_in_their_newest_form(brokers):
    upcasters = Upcasters().step("order", 2, lambda order: order | {"name": order["id"]})
    orders, calls = Service("orders", upcasters=upcasters), list[tuple[str, int]]()

    @orders.query("order.get")
    async def get(ctx: Context, order: dict[str, int]) -> dict[str, int]:
        assert ctx.message is not None
        calls.append((ctx.message.type, ctx.message.version))
        assert ctx.message.payload == order
        return order

    async with brokers() as broker, brokers() as asker:
        async with orders.run(broker, propagation=0) as run:
            for version, payload, code, kind in [
                (4, {"id": 1}, UNKNOWN_VERSION, "UnknownVersionError"),
                (1, {"id": 1}, UNKNOWN_VERSION, "UnknownVersionError"),
                (2, {"no": "id"}, BAD_PAYLOAD, "CodecError"),
            ]:
                with pytest.raises(RemoteError) as caught:
                    await asker.request("order.get", payload, type="order", version=version)
                assert (caught.value.code, caught.value.type) == (code, kind)
                assert caught.value.details == ({"version": version} if code != BAD_PAYLOAD else {})
            assert calls == []
            new = {"id": 1, "name": 1}
            assert await asker.request("order.get", {"id": 1}, type="order", version=2) == new
            assert await asker.request("order.get", new, type="order", version=3) == new
            assert await asker.request("order.get", {"id": 2}) == {"id": 2}
            figures = run.statistics().handlers["get"]
    assert calls == [("order", 3), ("order", 3), ("order.get", 1)]
    assert (figures.calls, figures.done, figures.failed) == (6, 3, 3)


async def test_a_handler_takes_what_it_wants():
    service, got = Service("shapes"), list[Any]()

    @service.command("one")
    async def payload_alone(payload: int) -> None:
        got.append(payload)

    @service.command("two")
    async def both(ctx: Context, payload: list[int], more: str = "default") -> None:
        got.append((ctx.handler, payload, more))

    @service.command("three")
    async def context_alone(ctx: Context) -> None:
        got.append(ctx.service)

    @service.command("four")
    async def nothing() -> None:
        got.append(None)

    @service.command("six")
    async def untyped(*payload):
        got.append(payload)

    async with Broker("memory://") as broker, service.run(broker, propagation=0):
        await broker.request("one", 1)
        await broker.request("two", [2])
        await broker.request("three")
        await broker.request("four", "ignored")
        await broker.request("six", {"a": 6})
    assert got == [1, ("both", [2], "default"), "shapes", None, ({"a": 6},)]


@pytest.mark.real
@pytest.mark.promise("messaging-service-calls")
async def test_a_plain_function_is_called_in_a_thread():
    service = Service("plain")

    @service.command("who")
    def who(ctx: Context) -> list[Any]:
        asked = anyio.from_thread.run(ctx.request, "id")
        return [threading.current_thread() is threading.main_thread(), correlation_id(), asked]

    @service.query("id")
    def own() -> str | None:
        return correlation_id()

    async with Broker("memory://") as broker, service.run(broker, propagation=0):
        with bind_correlation("request-7"):
            assert await broker.request("who") == [False, "request-7", "request-7"]


@pytest.mark.promise("messaging-service-calls")
async def test_handlers_stay_what_they_are():
    service = users_service()
    (handler,) = service.handlers
    assert await handler.fn(Wanted(17)) == User(17, "Ann")
    assert repr(service) == "Service('users', handlers=1)"


class Account:
    """A service in the form of a class."""

    version = "2.0"
    needs = ()

    def __init__(self) -> None:
        self.balance = 0
        self.told: list[str] = []

    @command("account.add", concurrency=1)
    async def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    @query("account.balance")
    def get(self) -> int:
        return self.balance

    @event("order.created")
    @event("order.paid")
    async def note(self, ctx: Context) -> None:
        assert ctx.message is not None
        self.told.append(ctx.message.topic)

    @every(0.5)
    async def interest(self) -> None:
        self.balance += 1


class Premium(Account):
    name = "premium"
    stack = Timeout(1)

    async def interest(self) -> None:  # no longer called by the clock
        raise AssertionError


@pytest.mark.promise("messaging-service-object")
async def test_an_object_is_a_service(brokers):
    account = Account()
    service = Service.from_object(account)
    assert (service.name, service.version) == ("account", "2.0")
    assert await account.add(0) == 0  # as any method
    async with brokers() as broker, service.run(broker, propagation=0) as run:
        assert await broker.request("account.add", 5) == 5
        assert await broker.request("account.balance") == 5
        await broker.publish("order.created")
        await broker.publish("order.paid")
        await until(lambda: len(account.told) == 2)
        await until(lambda: account.balance == 6)
        assert set(run.statistics().handlers) == {"add", "get", "note", "note-2", "interest"}


@pytest.mark.promise("messaging-upcasters-wired")
def test_an_object_may_have_upcasters():
    class Knowing(Account):
        upcasters = Upcasters()

    assert Service.from_object(Knowing()).upcasters is Knowing.upcasters
    assert Service.from_object(Account()).upcasters is None


@pytest.mark.promise("messaging-service-object")
def test_a_subclass_decides_about_the_tags_of_what_it_overrides():
    service = Service.from_object(Premium())
    assert (service.name, service.stack) == ("premium", Premium.stack)
    assert [each.name for each in service.handlers] == ["add", "get", "note", "note-2"]


@pytest.mark.promise("messaging-service-stack")
async def test_policies_stand_around_each_call_and_their_errors_are_the_callers():
    tries: list[str] = []
    service = Service("flaky", stack=Timeout(0.05))

    @service.command("slow")
    async def slow() -> None:
        await anyio.sleep(60)

    @service.command("again", stack=Retry(on=OSError, attempts=3, backoff=Constant(0)))
    async def again() -> int:
        tries.append("again")
        if len(tries) < 3:
            raise OSError("not yet")
        return len(tries)

    @service.command("full", stack=Bulkhead(0))
    async def full() -> None: ...

    async with Broker("memory://") as broker, service.run(broker, propagation=0):
        for topic, error, retryable in (
            ("slow", "TimeoutExceededError", True),
            ("full", "BulkheadFullError", True),
        ):
            with pytest.raises(RemoteError) as caught:
                await broker.request(topic)
            assert (caught.value.type, caught.value.retryable) == (error, retryable)
        assert await broker.request("again") == 3


@pytest.mark.promise("messaging-service-lifespan")
async def test_the_lifespan_is_entered_first_and_left_last(brokers):
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan():
        steps.append("begin")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 0)
            yield {"db": "open"}
        steps.append("end")

    service = Service("stateful", lifespan=lifespan)

    @service.query("db")
    async def db(ctx: Context) -> str:
        steps.append("call")
        return ctx.state["db"]

    run = None
    for _ in range(2):  # and again
        steps.clear()
        async with brokers() as broker:
            run = service.run(broker, propagation=0)
            states = [run.state]
            async with run:
                assert await broker.request("db") == "open"
                states.append(run.state)
            states.append(run.state)
            assert states == [ServiceState.STOPPED, ServiceState.READY, ServiceState.STOPPED]
        assert steps == ["begin", "call", "end"]


async def test_a_lifespan_that_fails_is_told_and_leaves_nothing():
    @asynccontextmanager
    async def lifespan():
        raise OSError("no database")
        yield

    service = Service("broken", lifespan=lifespan)
    async with Broker("memory://") as broker:
        with pytest.raises(OSError, match="no database"):
            async with service.run(broker):
                raise AssertionError
        assert broker.statistics().subscriptions == 0


async def test_a_run_opens_what_is_closed_and_is_entered_again(brokers):
    broker, service = brokers(), users_service()
    run = service.run(broker, propagation=0)
    for _ in range(2):
        async with run:
            assert await broker.request("user.get", {"id": 17}) == {"id": 17, "name": "Ann"}
            with pytest.raises(RuntimeError, match="open already"):
                await run.__aenter__()
        with pytest.raises(ClosedError):
            await broker.request("user.get", {"id": 17})


@pytest.mark.promise("messaging-service-deadline")
async def test_a_handler_ends_at_the_deadline_of_whoever_asks():
    service, ends = Service("slow"), []

    @service.query("slow")
    async def slow(ctx: Context) -> None:
        assert ctx.deadline == deadline() is not None
        try:
            await anyio.sleep(60)
        finally:
            ends.append(ctx.remaining)

    async with Broker("memory://") as broker, service.run(broker, propagation=0) as run:
        with pytest.raises(TimeoutExceededError):
            await broker.request("slow", timeout=0.1)
        await until(lambda: ends)
        await until(lambda: run.statistics().failed)
        figures = run.statistics().handlers["slow"]
        assert (figures.calls, figures.failed, figures.active) == (1, 1, 0)
        assert "not done at the deadline" in str(figures.last_error)


@pytest.mark.promise("messaging-service-hops")
async def test_services_that_ask_each_other_in_a_circle_are_ended():
    ping, pong, calls = Service("ping"), Service("pong"), []

    @ping.query("ping")
    async def ask_pong(ctx: Context) -> None:
        calls.append(ctx.hops)
        await ctx.request("pong")

    @pong.query("pong")
    async def ask_ping(ctx: Context) -> None:
        calls.append(ctx.hops)
        await ctx.request("ping")

    async with Broker("memory://") as broker:
        async with ping.run(broker, propagation=0), pong.run(broker, propagation=0):
            with pytest.raises(RemoteError) as caught:
                await broker.request("ping", timeout=60)
    assert caught.value.type == "RejectedError"
    assert calls == list(range(33))


async def test_sys_exit_in_a_handler_ends_no_service():
    service = Service("leaver")

    @service.command("leave")
    async def leave() -> None:
        raise SystemExit(3)

    async with Broker("memory://") as broker, service.run(broker, propagation=0):
        for _ in range(2):
            with pytest.raises(RemoteError, match=r"'leave' called sys.exit\(3\)"):
                await broker.request("leave")


@pytest.mark.promise("messaging-service-drain")
async def test_leaving_finishes_what_was_accepted(brokers):
    service, go, done = Service("work"), anyio.Event(), []

    @service.command("work", concurrency=2)
    async def work(number: int) -> int:
        await go.wait()
        done.append(number)
        return number

    async with brokers() as worker, brokers() as customer:
        run = service.run(worker, propagation=0.05)
        answers: list[int] = []

        async def ask(number: int) -> None:
            answers.append(await customer.request("work", number))

        async with anyio.create_task_group() as tasks:
            async with run:
                await until(known(worker, customer))
                for number in range(10):
                    tasks.start_soon(ask, number)
                await until(lambda: run.statistics().handlers["work"].waiting == 8)
                tasks.start_soon(_after, 0.1, go.set)
            figures = run.statistics()
        assert sorted(answers) == list(range(10))
        assert (figures.done, figures.failed, figures.cancelled) == (10, 0, 0)
        with pytest.raises(NoHandlersError):
            await customer.request("work", 11)


async def _after(seconds: float, then: Any) -> None:
    await sleep(seconds)
    then()


@pytest.mark.promise("messaging-service-drain")
async def test_what_is_not_done_within_the_grace_is_cut_off_and_told(brokers):
    service = Service("stuck")

    @service.command("stuck", concurrency=1)
    async def stuck() -> None:
        await anyio.sleep_forever()

    async with brokers() as worker, brokers() as customer:
        codes: list[str | None] = []

        async def ask() -> None:
            with pytest.raises(RemoteError) as caught:
                await customer.request("stuck", timeout=60)
            codes.append(caught.value.code)
            assert caught.value.retryable

        run = service.run(worker, grace=0.05, propagation=0)
        async with anyio.create_task_group() as tasks:
            async with run:
                await until(known(worker, customer))
                tasks.start_soon(ask)
                tasks.start_soon(ask)
                await until(lambda: run.statistics().handlers["stuck"].waiting == 1)
        assert sorted(codes, key=str) == sorted([LOST, None], key=str)
        figures = run.statistics()
        assert (figures.cancelled, figures.done) == (2, 0)


@pytest.mark.promise("messaging-service-drain")
async def test_no_event_is_lost_when_replicas_come_and_go(brokers):
    heard: list[int] = []

    def replica() -> Service:
        service = Service("hear")

        @service.event("tick")
        async def hear(number: int) -> None:
            heard.append(number)

        return service

    async with brokers() as one, brokers() as two, brokers() as shop:
        async with replica().run(one, propagation=0):
            await until(known(one, two, shop))
            number = 0
            for _ in range(2):
                async with replica().run(two, propagation=0.3):
                    for _ in range(20):
                        await shop.publish("tick", number)
                        number += 1
                        await sleep(0.002)
                for _ in range(5):
                    await shop.publish("tick", number)
                    number += 1
            await until(lambda: len(heard) >= number)
    assert sorted(heard) == list(range(number))


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda: Service(""), ValueError, "name"),
        (lambda: Service("a.b"), ValueError, "name must be one token"),
        (lambda: Service("a b"), ValueError, "name must be"),
        (lambda: Service(wrong(3)), TypeError, "name"),
        (lambda: Service("a", version=wrong(1)), TypeError, "version"),
        (lambda: Service("a", lifespan=wrong(1)), TypeError, "lifespan"),
        (lambda: Service("a", stack=wrong(1)), TypeError, "stack"),
        (lambda: Service("a", needs="users"), TypeError, "needs must be names"),
        (lambda: Service("a", upcasters=wrong([])), TypeError, "upcasters must be Upcasters"),
        (lambda: Service("a", needs=["a.b"]), ValueError, "needs must be one token"),
        (lambda: Service("a").command("a.*"), ValueError, "topic must be tokens"),
        (lambda: Service("a").query(""), ValueError, "topic"),
        (lambda: Service("a").event("a..b"), ValueError, "topic must be tokens"),
        (lambda: Service("a").event("$SRV.PING.a"), ValueError, r"must not begin with \$SRV"),
        (lambda: Service("a").every(0), ValueError, "seconds"),
        (lambda: Service("a").every(wrong("1")), TypeError, "seconds"),
        (lambda: Service("a").command("x", concurrency=0), ValueError, "concurrency"),
        (lambda: Service("a").command("x", key=wrong(1)), TypeError, "key"),
        (lambda: Service("a").command("x", stack=wrong(1)), TypeError, "stack"),
        (lambda: Service("a").command("x")(wrong(1)), TypeError, "fn"),
        (lambda: Service("a").run(wrong("memory://")), TypeError, "broker must be a Broker"),
        (lambda: Service("a").run(Broker("memory://"), grace=-1), ValueError, "grace"),
        (lambda: Service("a").run(Broker("memory://"), propagation=-1), ValueError, "propagation"),
        (lambda: Service("a").run(Broker("memory://"), wait=0), ValueError, "wait"),
        (lambda: Service("a").run(closed(), wrong("r")), TypeError, "registry must be a Service"),
        (lambda: Service("a").run(closed(), instance=wrong(1)), TypeError, "instance must be a"),
        (lambda: Service("a").run(closed(), checker=wrong(1)), TypeError, "checker must be a"),
        (lambda: Service.from_object(object()), ValueError, "obj must have methods tagged"),
    ],
    ids=range(28),
)
def test_bad_input_is_named(make, kind, match):
    with pytest.raises(kind, match=match):
        make()


@pytest.mark.promise("messaging-bad-input")
def test_a_topic_has_one_command_or_query_in_a_service():
    service = users_service()
    with pytest.raises(ValueError, match="topic must be new in service 'users'"):
        service.command("user.get")(users_service)
    service.event("user.get")(lambda payload: None)  # who wants to hear of it, may


@pytest.mark.promise("messaging-bad-input")
def test_a_handler_that_cannot_be_called_is_refused():
    service = Service("a")

    async def two(payload: int, other: int) -> None: ...

    async def keyword(payload: int, *, needed: int) -> None: ...

    async def clock(payload: int) -> None: ...

    async def generator(payload: int):
        yield payload

    with pytest.raises(TypeError, match=r"handler\(ctx, payload\).*needs 'other' as well"):
        service.command("x")(two)
    with pytest.raises(TypeError, match="needs 'needed' as well"):
        service.event("x")(keyword)
    with pytest.raises(TypeError, match="is a generator"):
        service.query("x")(generator)
    with pytest.raises(TypeError, match=r"called as handler\(ctx\); .*needs 'payload'"):
        service.every(1)(clock)
    assert not len(service.handlers)
