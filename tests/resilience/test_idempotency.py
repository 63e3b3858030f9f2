"""Idempotent calls: once for each key, repetitions, failures, crashes and lost answers."""

from __future__ import annotations

import math
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_deadline
from aiopatterns.core.errors import (
    BackendUnavailableError,
    ClosedError,
    CodecError,
    ConflictError,
    RejectedError,
)
from aiopatterns.resilience.idempotency import (
    IdempotencyReplayed,
    IdempotencyUnrecorded,
    Idempotent,
)
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.stack import Stack
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


@dataclass
class Receipt:
    number: int
    paid: bytes


class Charging:
    """An async function that counts its runs."""

    def __init__(self, delay: float = 0.0):
        self.runs = 0
        self.delay = delay
        self.error: Exception | None = None

    async def __call__(self, order: str, amount: int = 1) -> Receipt:
        self.runs += 1
        number = self.runs
        await sleep(self.delay)
        if self.error is not None:
            raise self.error
        return Receipt(number, b"\x00paid")


def by_order(order: str, *_: object, **__: object) -> str:
    return order


def once(backend, **options: Any) -> Idempotent:
    return Idempotent(backend, **{"key": by_order, "name": "charge", "returns": Receipt, **options})


async def together(number, fn):
    results: list[Any] = [None] * number

    async def call(at):
        try:
            results[at] = await fn()
        except Exception as error:
            results[at] = error

    async with anyio.create_task_group() as group:
        for at in range(number):
            group.start_soon(call, at)
    return results


async def test_a_repetition_gets_what_the_first_call_returned():
    async with open_backend("memory://") as backend:
        charge = Charging()
        charged = once(backend)(charge)
        with capture_events() as events:
            first = await charged("a", amount=5)
            assert not events
            again = await charged("a", amount=5)
        assert first == again == Receipt(1, b"\x00paid")
        assert charge.runs == 1
        assert events == [IdempotencyReplayed("charge", "a")]
        assert (await charged("b", amount=5)).number == 2


async def test_another_process_gets_it_too():
    async with open_backend("memory://") as backend:
        first, second = Charging(), Charging()
        assert await once(backend)(first)("a") == await once(backend)(second)("a")
        assert (first.runs, second.runs) == (1, 0)
        assert (await once(backend, name="other")(second)("a")).number == 1


async def test_results_come_back_as_the_type_that_the_function_names():
    async with open_backend("memory://") as backend:

        @Idempotent(backend, key=by_order)
        async def typed(order: str) -> Receipt:
            return Receipt(7, b"x")

        @Idempotent(backend, key=by_order)
        async def untyped(order):
            return {"number": 7}

        @Idempotent(backend, key=by_order)
        async def nothing(order: str) -> None: ...

        for _ in range(2):
            assert await typed("a") == Receipt(7, b"x")
            assert await untyped("b") == {"number": 7}
            assert await wrong(nothing)("c") is None


T = TypeVar("T")


async def test_a_function_that_does_not_say_what_it_returns():
    async with open_backend("memory://") as backend:

        async def generic(order: str, value: T) -> T:
            return value

        async def anything(order: str) -> object:
            return 7

        async def unknown(order: str) -> int:
            return 8

        unknown.__annotations__["return"] = "Nowhere"

        policy = Idempotent(backend, key=by_order)
        for _ in range(2):
            assert await policy(generic)("a", 6) == 6
            assert await policy(anything)("b") == 7
            assert await policy(unknown)("c") == 8
            assert await policy.call(lambda order: unknown(order=order), "d") == 8


async def test_inside_of_a_stack_the_type_is_given():
    async with open_backend("memory://") as backend:
        charge = Charging()
        stack = Stack(once(backend), Retry(on=OSError))
        assert await stack(charge)("a") == await stack(charge)("a") == Receipt(1, b"\x00paid")


async def test_a_call_without_a_key_is_just_a_call():
    async with open_backend("memory://") as backend:
        charge = Charging()
        charged = once(backend, key=lambda order, **_: None)(charge)
        assert [(await charged("a")).number for _ in range(2)] == [1, 2]


async def test_another_payload_under_the_key_is_refused():
    async with open_backend("memory://") as backend:
        charge = Charging()
        charged = once(backend)(charge)
        await charged("a", amount=5)
        with pytest.raises(ConflictError, match="the key 'a' was used with another payload") as e:
            await charged("a", amount=6)
        assert e.value.key == "a"
        assert charge.runs == 1


async def test_equal_payloads_are_equal_whatever_their_order():
    async with open_backend("memory://") as backend:
        runs = []

        @Idempotent(backend, key=lambda **_: "a")
        async def call(**arguments: object) -> int:
            runs.append(arguments)
            return len(runs)

        assert await call(x={"a": 1, "b": 2}, y={3, 1, 2}) == 1
        assert await call(y={2, 3, 1}, x={"b": 2, "a": 1}) == 1
        with pytest.raises(ConflictError):
            await call(y={2, 3}, x={"b": 2, "a": 1})


async def test_what_counts_as_the_payload_can_be_said():
    async with open_backend("memory://") as backend:

        class Shop:
            def __init__(self):
                self.orders = 0

            @Idempotent(
                backend,
                key=lambda _, order, **__: order,
                payload=lambda _, order, *, trace: order,
            )
            async def buy(self, order: str, *, trace: str) -> int:
                self.orders += 1
                return self.orders

        shop = Shop()
        assert await shop.buy("a", trace="1") == await shop.buy("a", trace="2") == 1


async def test_a_payload_that_cannot_be_encoded_says_what_to_do():
    async with open_backend("memory://") as backend:
        charge = Charging()
        with pytest.raises(CodecError, match=r"Idempotent\(name='charge'\).* give it a payload="):
            await once(backend)(charge)("a", wrong(object()))
        assert charge.runs == 0


async def test_a_result_that_cannot_be_stored_is_an_error():
    async with open_backend("memory://") as backend:

        @Idempotent(backend, key=by_order)
        async def call(order: str) -> object:
            return object()

        with pytest.raises(CodecError):
            await call("a")
        assert await backend.kv.get("idempotent:calls:a") is None


async def test_what_somebody_else_put_there_is_an_error():
    async with open_backend("memory://") as backend:
        await backend.kv.set("idempotent:charge:a", b"nonsense")
        with pytest.raises(CodecError):
            await once(backend)(Charging())("a")


async def test_a_failure_is_not_kept():
    async with open_backend("memory://") as backend:
        charge = Charging()
        charged = once(backend)(charge)
        charge.error = OSError("no network")
        for _ in range(2):
            with pytest.raises(OSError, match="no network") as e:
                await charged("a")
            assert e.value is charge.error
            assert e.value.__context__ is None
        charge.error = None
        assert (await charged("a")).number == 3


async def test_a_group_of_errors_leaves_as_it_is():
    async with open_backend("memory://") as backend:
        charge = Charging()
        charge.error = group = ExceptionGroup("two", [ValueError(), OSError()])
        with pytest.raises(ExceptionGroup) as e:
            await once(backend)(charge)("a")
        assert e.value is group


def test_an_outcome_is_kept_for_its_time():
    async def main():
        async with open_backend("memory://") as backend:
            charge = Charging()
            charged = once(backend, ttl=100)(charge)
            await charged("a")
            await sleep(99)
            assert (await charged("a")).number == 1
            await sleep(2)
            assert (await charged("a")).number == 2

    simulate(main)


@pytest.mark.promise("resilience-idempotent")
def test_of_many_at_once_one_runs_and_all_get_its_result():
    async def main():
        async with open_backend("memory://") as backend:
            charge = Charging(delay=0.01)
            charged = [once(backend)(charge) for _ in range(3)]
            results: list[Any] = []

            async def call(at):
                results.append(await charged[at % 3]("a"))

            async with anyio.create_task_group() as group:
                for at in range(12):
                    group.start_soon(call, at)
            assert results == [Receipt(1, b"\x00paid")] * 12
            assert charge.runs == 1

    explore(main, range(200))


def test_when_the_first_fails_the_next_runs():
    async def main():
        async with open_backend("memory://") as backend:
            runs = []

            @once(backend)
            async def charge(order: str) -> Receipt:
                runs.append(monotonic())
                await sleep(1)
                if len(runs) < 3:
                    raise OSError
                return Receipt(len(runs), b"")

            results = await together(5, lambda: charge("a"))
            assert sum(isinstance(each, OSError) for each in results) == 2
            assert results.count(Receipt(3, b"")) == 3
            assert len(runs) == 3
            assert runs == pytest.approx([0, 1, 2], abs=0.01)  # told at once, not found by looking

    explore(main, range(20))


def test_a_repetition_may_refuse_to_wait():
    async def main():
        async with open_backend("memory://") as backend:
            charge = Charging(delay=10)
            patient, hasty = once(backend)(charge), once(backend, max_wait=0)(charge)
            short = once(backend, max_wait=2)(charge)
            async with anyio.create_task_group() as group:
                group.start_soon(patient, "a")
                await sleep(1)
                with pytest.raises(RejectedError, match="with the key 'a' has not ended yet") as e:
                    await hasty("a")
                assert e.value.name == "charge"
                assert monotonic() == 1
                with pytest.raises(RejectedError):
                    await short("a")
                assert monotonic() == 3
                with bind_deadline(monotonic() + 1), pytest.raises(RejectedError):
                    await patient("a")
                assert monotonic() == 4
            assert (await hasty("a")).number == 1

    simulate(main)


def test_the_lease_is_renewed_while_the_call_runs():
    async def main():
        async with open_backend("memory://") as backend:
            charge = Charging(delay=100)
            charged = once(backend, lease=3)(charge)
            results = []

            async def call():
                results.append(await charged("a"))

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await sleep(50)
                group.start_soon(call)
            assert results == [Receipt(1, b"\x00paid")] * 2
            assert charge.runs == 1

    simulate(main)


def test_a_crash_frees_the_key_when_its_lease_ends():
    async def main():
        async with open_backend("memory://") as backend:
            policy = once(backend, lease=5)
            crashed = policy(Charging(delay=1000))("a")
            task = anyio.create_task_group()
            async with task:
                task.start_soon(_drive, crashed)
                await sleep(1)
                # The process is gone: nothing is renewed and nothing is given back.
                await backend.kv.set("idempotent:charge:a", await _held(backend), ttl=5)
                task.cancel_scope.cancel()
            await backend.kv.set("idempotent:charge:a", _Dead.record, ttl=5)
            began = monotonic()
            charge = Charging()
            assert (await policy(charge)("a")).number == 1
            assert 5 <= monotonic() - began <= 5.6

    simulate(main)


class _Dead:
    record = b""


async def _held(backend) -> bytes:
    _Dead.record = await backend.kv.get("idempotent:charge:a")
    return _Dead.record


async def _drive(coroutine) -> None:
    await coroutine


class Lossy:
    """Keys and values whose answers get lost, from one call on and as often as asked."""

    def __init__(self, backend):
        self.backend = backend
        self.kv = self
        self.pubsub = backend.pubsub
        self.lose: list[str] = []  # what happens to the next calls of compare_and_set

    async def get(self, key):
        return await self.backend.kv.get(key)

    async def compare_and_set(self, key, expected, value, *, ttl=None, notify=None):
        what = self.lose.pop(0) if self.lose else "well"
        done = False
        if what in {"well", "answer"}:
            done = await self.backend.kv.compare_and_set(
                key, expected, value, ttl=ttl, notify=notify
            )
        if what != "well":
            raise BackendUnavailableError("gone")
        return done


@asynccontextmanager
async def lossy():
    async with open_backend("memory://") as backend:
        yield wrong(Lossy(backend))


async def test_nothing_runs_while_the_backend_is_away():
    async with lossy() as backend:
        charge = Charging()
        backend.lose = ["request", "request"]
        with pytest.raises(BackendUnavailableError):
            await once(backend)(charge)("a")
        assert charge.runs == 0
        assert (await once(backend)(charge)("a")).number == 1


async def test_a_claim_whose_answer_is_lost_is_given_back():
    async with lossy() as backend:
        backend.lose = ["answer"]
        with pytest.raises(BackendUnavailableError):
            await once(backend)(Charging())("a")
        assert await backend.kv.get("idempotent:charge:a") is None


def test_an_outcome_whose_answer_is_lost_is_stored_once():
    async def main():
        async with lossy() as backend:
            charge = Charging()
            for lost in (["well", "answer"], ["well", "request"], ["well", *["request"] * 3]):
                backend.lose = [*lost]
                with capture_events() as events:
                    order = str(len(lost)) + lost[-1]
                    first = await once(backend)(charge)(order)
                    assert await once(backend)(charge)(order) == first
                assert [type(each) for each in events] == [IdempotencyReplayed]
            assert charge.runs == 3

    simulate(main)


def test_an_outcome_that_cannot_be_stored_is_told():
    async def main():
        async with lossy() as backend:
            backend.lose = ["well", *["request"] * 4]
            with capture_events() as events:
                assert (await once(backend)(Charging())("a")).number == 1
            assert events == [IdempotencyUnrecorded("charge", "a", "gone")]
            assert monotonic() == pytest.approx(2.0)

    simulate(main)


def test_a_backend_that_hangs_at_the_end_does_not_hold_the_result():
    async def main():
        async with lossy() as backend:
            charge = Charging()

            async def hang(*_: object, **__: object) -> bool:
                await sleep(3600)
                return True

            async def charge_and_hang(order: str) -> Receipt:
                backend.compare_and_set = hang
                return await charge(order)

            with capture_events() as events:
                assert (await once(backend)(charge_and_hang)("a")).number == 1
            assert events == [IdempotencyUnrecorded("charge", "a", "storing it was interrupted")]
            assert monotonic() < 3

    simulate(main)


def test_a_lease_that_was_lost_is_told_and_the_others_outcome_stands():
    async def main():
        async with open_backend("memory://") as backend:
            slow, fast = Charging(delay=10), Charging()
            fast.runs = 100
            with capture_events() as events:
                async with anyio.create_task_group() as group:
                    results = []

                    async def late():
                        results.append(await once(backend, lease=3)(slow)("a"))

                    group.start_soon(late)
                    await sleep(0.5)
                    await backend.kv.delete("idempotent:charge:a")  # as after a long pause
                    assert (await once(backend)(fast)("a")).number == 101
            assert [each.number for each in results] == [1]
            assert events == [IdempotencyUnrecorded("charge", "a", "the lease had ended")]
            assert (await once(backend)(fast)("a")).number == 101

    simulate(main)


def test_a_renewal_that_fails_is_tried_again():
    async def main():
        async with lossy() as backend:
            backend.lose = ["well", "request", "answer", "well", "request"]
            charge = Charging(delay=10)
            assert (await once(backend, lease=6)(charge)("a")).number == 1
            assert (await once(backend, lease=6)(charge)("a")).number == 1

    simulate(main)


async def test_a_stream_is_refused():
    async def stream(order: str):
        yield order

    with pytest.raises(TypeError, match="a stream cannot be repeated"):
        once("memory://")(stream)


async def test_a_closed_backend_says_so():
    policy = once("memory://")
    with pytest.raises(ClosedError):
        await policy(Charging())("a")
    async with policy.backend:
        assert (await policy(Charging())("a")).number == 1


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"key": "a"}, TypeError, "key must be a function"),
        ({"ttl": 0}, ValueError, "ttl must be"),
        ({"ttl": math.nan}, ValueError, "ttl must be"),
        ({"name": ""}, ValueError, "name must be"),
        ({"payload": 7}, TypeError, "payload must be a function"),
        ({"max_wait": -1}, ValueError, "max_wait must be"),
        ({"lease": 0}, ValueError, "lease must be"),
        ({"returns": 7}, TypeError, "7"),
        ({"backend": 7}, TypeError, "backend must be"),
    ],
)
def test_bad_input_of_the_constructor(arguments, error, text):
    good: dict[str, Any] = {"backend": "memory://", "key": by_order}
    with pytest.raises(error, match=text):
        Idempotent(**{**good, **arguments})


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    ("key", "error"), [("", ValueError), (7, TypeError), ("x" * 1025, ValueError)]
)
async def test_bad_keys(key, error):
    async with open_backend("memory://") as backend:
        charge = Charging()
        with pytest.raises(error, match="key must be"):
            await once(backend, key=lambda *_: key)(charge)("a")
        assert charge.runs == 0


async def test_an_async_key_function_is_refused():
    async def key(order: str) -> str:
        return order

    with pytest.raises(TypeError, match="key must be a plain function"):
        Idempotent("memory://", key=wrong(key))


@pytest.mark.promise("resilience-cancel-everywhere", "resilience-idempotent")
@pytest.mark.parametrize("kinds", [("native", "scope", "timeout"), ("native-twice",)])
def test_who_is_cancelled_keeps_no_key_for_longer_than_its_lease(kinds):
    def scenario() -> Trial:
        backend = open_backend("memory://")
        charge = Charging(delay=0.5)

        async def work():
            async with backend:
                await once(backend, lease=1)(charge)("a")

        async def check():
            async with backend:
                if kinds == ("native-twice",):
                    await sleep(2)
                assert await once(backend, max_wait=0)(charge)("a") is not None
                assert charge.runs <= 2

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=kinds, minimum=1)


class Distant(Lossy):
    """A backend to which every word takes a moment, and every answer another one."""

    async def get(self, key):
        await sleep(0.01)
        return await super().get(key)

    async def compare_and_set(self, key, expected, value, *, ttl=None, notify=None):
        await sleep(0.01)
        done = await super().compare_and_set(key, expected, value, ttl=ttl, notify=notify)
        await sleep(0.01)
        return done


@pytest.mark.promise("resilience-cancel-everywhere", "resilience-idempotent")
@pytest.mark.parametrize("kinds", [("native", "scope", "timeout"), ("native-twice",)])
def test_who_is_cancelled_on_the_way_keeps_no_key_for_longer_than_its_lease(kinds):
    def scenario() -> Trial:
        backend = open_backend("memory://")
        distant = wrong(Distant(backend))
        charge = Charging(delay=0.5)

        async def work():
            async with backend:
                await once(distant, lease=1)(charge)("a")

        async def check():
            async with backend:
                if "native-twice" in kinds:
                    await sleep(1)  # the second cancels the cleanup
                before = charge.runs
                again = await once(distant, max_wait=0)(charge)("a")
                assert again.number == max(charge.runs, 1)
                assert charge.runs <= before + 1 <= 2

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=kinds, minimum=5)


@pytest.mark.promise("resilience-cancel-everywhere")
def test_a_waiter_that_is_cancelled_leaves_nothing():
    def scenario() -> Trial:
        backend = open_backend("memory://")
        charge = Charging(delay=2)
        charged = once(backend)(charge)

        async def work():
            async with backend, anyio.create_task_group() as group:
                group.start_soon(charged, "a")
                await sleep(0.1)
                await charged("a")

        return Trial(work(), lambda: None)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout"), minimum=3)


def test_faults_of_user_functions_leave_the_key_free():
    def scenario(fault) -> Trial:
        backend = open_backend("memory://")

        def key(order):
            fault()
            return order

        def payload(order):
            fault()
            return order

        @Idempotent(backend, key=key, payload=payload)
        async def charge(order: str) -> int:
            fault()
            return 1

        async def work():
            async with backend:
                await charge("a")

        async def check():
            async with backend:
                again = Idempotent(backend, key=by_order, payload=by_order, max_wait=0)
                assert await again(_one)("a") == 1

        return Trial(work(), check)

    async def _one(order: str) -> int:
        return 1

    fail_everywhere(scenario, minimum=3)


CHILD = """
import sys, anyio
from aiopatterns.backends import open_backend
from aiopatterns.resilience.idempotency import Idempotent

async def main():
    async with open_backend(sys.argv[1]) as backend:
        @Idempotent(backend, key=lambda order: order, lease=float(sys.argv[2]))
        async def charge(order: str) -> int:
            print("run", flush=True)
            await anyio.sleep(float(sys.argv[3]))
            return await backend.kv.incr("effects")
        print(await charge("a"), flush=True)

anyio.run(main)
"""


def child(url: str, lease: float, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CHILD, url, str(lease), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.mark.real
@pytest.mark.leaves("ap:kv:effects")
@pytest.mark.promise("resilience-idempotent")
async def test_processes_run_it_once_over_redis(redis_url):
    children = [child(redis_url, 15, 0.3) for _ in range(3)]
    outputs = [await anyio.to_thread.run_sync(each.communicate) for each in children]
    texts = sorted(output.decode().split() for output, _ in outputs)
    assert texts == [["1"], ["1"], ["run", "1"]]


@pytest.mark.real
@pytest.mark.leaves("ap:kv:effects")
@pytest.mark.promise("resilience-idempotent")
async def test_a_killed_process_frees_its_key(redis_url):
    victim = child(redis_url, 1.0, 600)
    assert victim.stdout is not None
    assert await anyio.to_thread.run_sync(victim.stdout.readline) == b"run\n"
    victim.kill()
    victim.communicate()
    began = monotonic()
    heir = child(redis_url, 1.0, 0)
    output, _ = await anyio.to_thread.run_sync(heir.communicate)
    assert output.split() == [b"run", b"1"]
    assert monotonic() - began < 5


@pytest.mark.real
async def test_it_runs_over_redis(redis_url):
    async with open_backend(redis_url) as backend:
        charge = Charging(delay=0.05)
        charged = once(backend, ttl=60)(charge)
        assert await together(20, lambda: charged("a")) == [Receipt(1, b"\x00paid")] * 20
        assert charge.runs == 1
