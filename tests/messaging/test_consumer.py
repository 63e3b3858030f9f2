"""StreamConsumer: one contract in memory and on Redis; endings, retries, order, drain, bad input."""

from __future__ import annotations

import gc
from collections import defaultdict
from contextlib import suppress
from math import nan
from typing import Any

import anyio
import pytest

import aiopatterns
from aiopatterns.backends import open_backend
from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.records import GroupTurn
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.context import correlation_id
from aiopatterns.core.errors import (
    BackendUnavailableError,
    ClosedError,
    Reject,
    RetryLater,
    UnknownVersionError,
)
from aiopatterns.messaging import (
    ConsumerStatistics,
    DeadLetter,
    Message,
    Stream,
    StreamConsumer,
    Upcasters,
)
from aiopatterns.messaging.streamevents import (
    StreamDeadLettered,
    StreamHandlerFailed,
    StreamInterrupted,
    StreamResumed,
)
from aiopatterns.resilience.backoff import Constant
from aiopatterns.testing import (
    InjectedError,
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)
from tests.messaging.places import over_backends

pytestmark = pytest.mark.leaves("{ap:log:*", "ap:*lease*")

AT_ONCE = Constant(0.0)


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def payload_of(letter: DeadLetter) -> Any:
    assert letter.message is not None
    return letter.message.payload


def balanced(figures: ConsumerStatistics) -> bool:
    return figures.claimed == sum(
        (
            figures.acked,
            figures.retried,
            figures.dead,
            figures.released,
            figures.lost,
            figures.in_hand,
        )
    )


# --------------------------------------------------------------------------- deliveries and endings


@pytest.mark.promise("messaging-stream-conformance")
@over_backends
async def test_messages_come_in_order_and_are_done(backend):
    stream = Stream("s", backend)
    await stream.append_many([{"n": n} for n in range(250)], type="number", headers={"a": "b"})
    got, message = [], Message(type="none")
    async with StreamConsumer(stream, group="g") as consumer:
        async for delivery in consumer:
            async with delivery as message:
                got.append(message.payload["n"])
            if len(got) == 250:
                assert delivery.attempt == 1
                assert not delivery.lost
                assert delivery.id
                break
        assert (message.type, message.topic, message.attempt) == ("number", "s", 1)
        assert dict(message.headers) == {"a": "b"}
    assert got == [*range(250)]
    assert await stream.log.pending("g") == []
    assert await stream.lag("g") == 0
    figures = consumer.statistics()
    assert (figures.claimed, figures.acked, figures.in_hand) == (250, 250, 0)


@over_backends
async def test_every_group_gets_every_message_and_shares_it_out(backend):
    stream = Stream("s", backend)
    await stream.append_many([*range(40)])
    got: dict[str, list[int]] = defaultdict(list)

    async def consume(group: str) -> None:
        consumer = StreamConsumer(stream, group=group, prefetch=3)

        async def handler(message: Message) -> None:
            got[group].append(message.payload)
            await sleep(0)
            if len(got[group]) == 40:
                done.set()

        done = ended[group]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consumer.run, handler)
            await done.wait()
            consumer.stop()

    ended = {"one": anyio.Event(), "two": anyio.Event()}
    async with anyio.create_task_group() as tasks:
        for group in ("one", "one", "two"):
            tasks.start_soon(consume, group)
    assert sorted(got["one"]) == sorted(got["two"]) == [*range(40)]


@pytest.mark.promise("messaging-stream-endings")
@over_backends
async def test_the_endings_of_a_body(backend):
    """Normal, error, cancelled, never entered, break inside, Reject, RetryLater."""
    stream = Stream("s", backend)
    names = ("normal", "error", "cancelled", "never", "break", "reject", "later")
    await stream.append_many(names)
    attempts: dict[str, list[int]] = defaultdict(list)

    async def body(delivery: Any) -> None:
        async with delivery as message:
            attempts[message.payload].append(message.attempt)
            if len(attempts[message.payload]) > 1:
                return
            match message.payload:
                case "error":
                    raise ValueError("x")
                case "reject":
                    raise Reject("never")
                case "later":
                    raise RetryLater(0.05)
                case "cancelled":
                    scope.cancel()
                    await sleep(1)

    async with StreamConsumer(stream, group="g", backoff=AT_ONCE) as consumer:
        skipped = False
        while len(attempts) < 7 or len(attempts["later"]) < 2 or len(attempts["error"]) < 2:
            async for delivery in consumer:
                if not skipped and consumer.statistics().claimed >= 4 and len(attempts) == 3:
                    skipped = True
                    break  # never entered
                with anyio.CancelScope() as scope:
                    with suppress(ValueError, Reject, RetryLater):
                        await body(delivery)
                break
            del delivery
        while consumer.statistics().in_hand:
            await sleep(0.001)
    assert attempts == {
        "normal": [1],
        "error": [1, 2],
        "cancelled": [1, 1],
        "never": [1],
        "break": [1],
        "reject": [1],
        "later": [1, 1],
    }
    (letter,) = await stream.dead_letters(group="g")
    assert (payload_of(letter), letter.attempts) == ("reject", 1)
    assert letter.error == "Reject: never"
    assert balanced(consumer.statistics())
    assert await stream.log.pending("g") == []


@over_backends
async def test_a_break_inside_a_block_is_its_normal_end_and_one_before_it_is_none(backend):
    stream = Stream("s", backend)
    await stream.append_many(["inside", "before", "after"])
    got: list[tuple[str, int]] = []
    async with StreamConsumer(stream, group="g", prefetch=1) as consumer:
        async for delivery in consumer:
            async with delivery as message:
                got.append((message.payload, message.attempt))
                break
        async for delivery in consumer:
            break
        assert consumer.statistics().acked == 1
        del delivery
        async for delivery in consumer:
            async with delivery as message:
                got.append((message.payload, message.attempt))
            if len(got) == 3:
                break
    assert got[0] == ("inside", 1)
    assert sorted(got[1:]) == [("after", 1), ("before", 1)]
    figures = consumer.statistics()
    assert (figures.acked, figures.released, figures.retried, figures.dead) == (3, 1, 0, 0)
    assert balanced(figures)
    assert await stream.log.pending("g") == []
    assert await stream.lag("g") == 0


@over_backends
async def test_the_error_of_a_body_goes_on_and_the_first_retry_comes_within_a_second(backend):
    stream = Stream("s", backend)
    await stream.append("x")
    error = ValueError("x")
    async with StreamConsumer(stream, group="g") as consumer:
        with pytest.raises(ValueError) as raised:
            async for delivery in consumer:
                async with delivery:
                    raise error
        assert raised.value is error
        with anyio.fail_after(1.0 + 0.5):
            async with await anext(consumer) as message:
                assert message.attempt == 2


@pytest.mark.promise("messaging-stream-dead-letters")
@over_backends
async def test_a_message_that_always_fails_is_a_dead_letter_and_is_driven_anew(backend):
    stream = Stream("s", backend)
    await stream.append({"n": 1})
    await stream.append({"n": 2})
    tried, works = [], False
    consumer = StreamConsumer(stream, group="g", max_deliveries=3, backoff=AT_ONCE)

    async def handler(message: Message) -> None:
        if message.payload["n"] == 1:
            tried.append(message.attempt)
            if not works:
                raise KeyError("no")

    with capture_events() as events:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consumer.run, handler)
            while not (letters := await _letters(stream)):
                await sleep(0.005)
            works = True
            assert await stream.requeue([letters[0].id], group="g") == 1
            while len(tried) < 4:
                await sleep(0.005)
            consumer.stop()
    assert tried == [1, 2, 3, 1]
    assert (letters[0].message.payload, letters[0].attempts) == ({"n": 1}, 3)
    assert letters[0].error == "KeyError: 'no'"
    kinds = [
        type(each) for each in events if isinstance(each, StreamHandlerFailed | StreamDeadLettered)
    ]
    assert kinds == [StreamHandlerFailed, StreamHandlerFailed, StreamDeadLettered]
    assert await stream.dead_letters(group="g") == []


async def _letters(stream: Stream) -> list[Any]:
    try:
        return await stream.dead_letters(group="g")
    except ValueError:  # the group is not there yet
        return []


@pytest.mark.promise("messaging-stream-hostile")
@over_backends
async def test_what_is_no_message_is_a_dead_letter_with_its_bytes(backend):
    stream = Stream("s", backend, max_bytes=1_000)
    good = stream.envelopes.encode(Message(type="t", payload=1))
    hostile = [
        b"",
        b"\x00",
        b"garbage",
        b"\xff" * 5_000,
        good[:-3],
        b"[" * 900,
        bytes([200]) + good[1:],
    ]
    await stream.log.append_many(hostile)
    await stream.append("fine")
    async with StreamConsumer(stream, group="g") as consumer:
        async with await anext(consumer) as message:
            assert message.payload == "fine"
        while consumer.statistics().in_hand:
            await sleep(0.001)
    letters = await stream.dead_letters(group="g")
    assert [each.data for each in reversed(letters)] == hostile
    assert all(each.message is None and each.error for each in letters)
    assert any("UnknownVersionError" in each.error for each in letters)
    assert issubclass(UnknownVersionError, Exception)


@pytest.mark.promise("messaging-upcasters-wired")
@over_backends
async def test_old_messages_come_in_their_newest_form(backend):
    def spoils(payload: Any) -> Any:
        return payload["missing"]

    upcasters = (
        Upcasters()
        .step("order", 2, lambda order: order | {"currency": "EUR"})
        .step("order", 3, lambda order: order, to=("purchase", 1))
        .step("spoilt", 1, spoils)
    )
    stream = Stream("s", backend)
    for name, version in [("order", 2), ("order", 1), ("purchase", 7), ("spoilt", 1)]:
        await stream.append({"id": version}, type=name, version=version, key="k")
    await stream.append({"id": 0}, type="other", version=9)
    await stream.append({"id": 1}, type="purchase")
    keys, got = list[str](), list[tuple[str, int, Any]]()
    consumer = StreamConsumer(stream, group="g", upcasters=upcasters)

    async def handler(message: Message) -> None:
        got.append((message.type, message.version, message.payload))
        if len(got) == 3:
            consumer.stop()

    await consumer.run(handler, key=lambda message: keys.append(message.type))
    assert got == [
        ("purchase", 1, {"id": 2, "currency": "EUR"}),
        ("other", 9, {"id": 0}),
        ("purchase", 1, {"id": 1}),
    ]
    assert keys == [each[0] for each in got]
    letters = await stream.dead_letters(group="g")
    assert sorted(each.error.partition(": ")[0] for each in letters) == [
        "CodecError",
        "UnknownVersionError",
        "UnknownVersionError",
    ]
    assert {(each.message.type, each.message.version) for each in letters if each.message} == {
        ("order", 1),
        ("purchase", 7),
        ("spoilt", 1),
    }

    newer = upcasters.step("purchase", 1, lambda order: order | {"paid": False})
    (newest,) = [each for each in letters if each.message and each.message.type == "purchase"]
    for version in range(2, 7):
        newer.step("purchase", version, lambda order: order)
    await stream.requeue([newest.id], group="g")  # after the next deployment
    async with StreamConsumer(stream, group="g", upcasters=newer) as later:
        async with await anext(later) as message:
            assert (message.version, message.payload, message.attempt) == (7, {"id": 7}, 1)


@over_backends
async def test_a_body_is_on_behalf_of_its_message(backend):
    stream, other = Stream("s", backend), Stream("o", backend)
    await stream.append(1)
    async with StreamConsumer(stream, group="g") as consumer:
        async with await anext(consumer) as message:
            assert correlation_id() == message.correlation_id == message.id
            await other.append(2)
        assert correlation_id() is None
    async with StreamConsumer(other, group="g") as consumer:
        async with await anext(consumer) as caused:
            assert (caused.causation_id, caused.correlation_id) == (message.id, message.id)
            assert caused.hops == 1


@over_backends
async def test_a_delivery_is_entered_once_and_only_while_it_is_in_hand(backend):
    stream = Stream("s", backend)
    await stream.append_many([1, 2])
    async with StreamConsumer(stream, group="g") as consumer:
        delivery = await anext(consumer)
        async with delivery:
            pass
        with pytest.raises(RuntimeError, match="entered already"):
            await delivery.__aenter__()
        late = await anext(consumer)
    with pytest.raises(ClosedError):
        await late.__aenter__()
    assert consumer.statistics().released == 1
    del late
    gc.collect()


# ----------------------------------------------------------------------------------- run and order


@pytest.mark.parametrize("plain", [False, True])
@over_backends
async def test_run_handles_by_functions_of_either_kind_until_it_is_stopped(backend, plain):
    stream = Stream("s", backend)
    await stream.append_many([*range(30)])
    got = []

    def sync(message: Message) -> None:
        assert correlation_id() == message.id
        got.append(message.payload)
        if len(got) == 30:
            consumer.stop()

    async def handler(message: Message) -> None:
        await sleep(0)
        sync(message)

    consumer = StreamConsumer(stream, group="g")
    await consumer.run(sync if plain else handler, concurrency=4)
    assert sorted(got) == [*range(30)]
    assert await stream.log.pending("g") == []
    assert consumer.statistics().acked == 30


@over_backends
async def test_run_has_so_many_handlers_at_once(backend):
    stream = Stream("s", backend)
    await stream.append_many([*range(20)])
    running = peak = done = 0

    async def handler(message: Message) -> None:
        nonlocal running, peak, done
        running += 1
        peak = max(peak, running)
        await sleep(0.01)
        running -= 1
        done += 1
        if done == 20:
            consumer.stop()

    consumer = StreamConsumer(stream, group="g")
    await consumer.run(handler, concurrency=5)
    assert peak == 5


@pytest.mark.promise("messaging-stream-order")
@over_backends
async def test_keys_are_in_order_over_four_consumers_with_retries_and_takeovers(backend):
    stream = Stream("s", backend)
    dice = rng()
    for number in range(240):
        await stream.append(number, key=f"k{dice.randrange(7)}")
    done: dict[str | None, list[int]] = defaultdict(list)
    running: set[str | None] = set()
    count = 0

    def handler_of(consumer: StreamConsumer) -> Any:
        async def handler(message: Message) -> None:
            nonlocal count
            assert message.key not in running, "two of one key at once"
            running.add(message.key)
            try:
                await sleep(0.001)
                if message.payload % 10 == 3 and message.attempt < 3:
                    raise ValueError("again")
                if message.payload % 40 == 7 and message.payload not in later:
                    later.add(message.payload)
                    raise RetryLater(0.002)
            finally:
                running.discard(message.key)
            done[message.key].append(message.payload)
            count += 1
            if count in {60, 120, 180}:
                consumer.stop()  # another one takes over

        return handler

    later: set[int] = set()
    terms: dict[str, Any] = {"prefetch": 20, "backoff": Constant(0.002), "claim_idle": 2.0}
    consumers = [StreamConsumer(stream, group="g", **terms) for _ in range(4)]
    async with anyio.create_task_group() as tasks:
        for each in consumers:
            tasks.start_soon(_run, each, handler_of(each))
        while count < 240:
            await sleep(0.01)
        for each in consumers:
            each.stop()
    assert sum(map(len, done.values())) == 240
    assert all(numbers == sorted(numbers) for numbers in done.values())
    assert sum(each.statistics().acked > 0 for each in consumers) >= 3
    assert await stream.log.pending("g") == []


async def _run(consumer: StreamConsumer, handler: Any) -> None:
    await consumer.run(handler, key=lambda message: message.key)


@over_backends
async def test_a_key_that_waits_for_its_next_attempt_holds_no_other_key(backend):
    stream = Stream("s", backend)
    for number, key in enumerate("aabab"):
        await stream.append(number, key=key)
    order = []

    async def handler(message: Message) -> None:
        order.append((message.payload, message.attempt))
        if message.payload == 0 and message.attempt == 1:
            raise ValueError("once")
        if len(order) == 6:
            consumer.stop()

    consumer = StreamConsumer(stream, group="g", backoff=Constant(0.05))
    await consumer.run(handler, concurrency=1, key=lambda message: message.key)
    assert order == [(0, 1), (2, 1), (4, 1), (0, 2), (1, 1), (3, 1)]


@over_backends
async def test_in_a_lane_as_well_a_message_is_given_up_in_the_end_and_its_key_goes_on(backend):
    stream = Stream("s", backend)
    await stream.append_many([0, 1, 2], key="a")
    order = []

    async def handler(message: Message) -> None:
        order.append((message.payload, message.attempt))
        if message.payload == 0:
            raise ValueError("x")
        if message.payload == 1:
            raise Reject("no")
        consumer.stop()

    consumer = StreamConsumer(stream, group="g", backoff=AT_ONCE, max_deliveries=2)
    await consumer.run(handler, key=lambda message: message.key)
    assert order == [(0, 1), (0, 2), (1, 1), (2, 1)]
    letters = await stream.dead_letters(group="g")
    assert [*map(payload_of, letters)] == [1, 0]


@pytest.mark.parametrize(
    "key", [lambda message: message.payload["k"], lambda message: []], ids=["raises", "unhashable"]
)
@over_backends
async def test_a_message_whose_key_cannot_be_had_is_given_up(backend, key):
    stream = Stream("s", backend)
    await stream.append({})
    consumer = StreamConsumer(stream, group="g")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: consumer.run(print, key=key))
        while not (letters := await _letters(stream)):
            await sleep(0.005)
        consumer.stop()
    assert "its key cannot be had" in letters[0].error


@over_backends
async def test_messages_without_a_key_are_in_no_order_among_those_that_have_one(backend):
    stream = Stream("s", backend)
    await stream.append_many([1, 2])
    got = []

    async def handler(message: Message) -> None:
        got.append(message.payload)
        if len(got) == 2:
            consumer.stop()
        await both.wait() if len(got) == 1 else both.set()

    both = anyio.Event()
    consumer = StreamConsumer(stream, group="g")
    await consumer.run(handler, key=lambda message: message.key)
    assert got == [1, 2]


@over_backends
async def test_what_no_handler_should_raise_ends_the_run_as_it_is(backend):
    stream = Stream("s", backend)
    await stream.append(1)
    fatal = GeneratorExit("fatal")

    async def handler(message: Message) -> None:
        raise fatal

    consumer = StreamConsumer(stream, group="g")
    with pytest.raises(GeneratorExit) as raised:
        await consumer.run(handler)
    assert raised.value is fatal
    assert consumer.statistics().released == 1


@over_backends
async def test_a_handler_that_cancels_itself_has_failed(backend):
    stream = Stream("s", backend)
    await stream.append(1)

    async def handler(message: Message) -> None:
        if message.attempt == 1:
            raise anyio.get_cancelled_exc_class()
        consumer.stop()

    consumer = StreamConsumer(stream, group="g", backoff=AT_ONCE)
    await consumer.run(handler)
    assert consumer.statistics().acked == 1


# ------------------------------------------------------------------------- ends and other consumers


@pytest.mark.promise("messaging-stream-reclaim")
@over_backends
async def test_what_a_silent_consumer_had_is_taken_over_on_an_idle_stream(backend):
    stream = Stream("s", backend)
    await stream.append_many([1, 2, 3])
    await stream.log.create_group("g")
    await stream.log.turn("g", "killed", GroupTurn(limit=2))
    got = []
    async with StreamConsumer(stream, group="g", claim_idle=0.6) as consumer:
        with anyio.fail_after(0.6 + 1.0 + 1.0):
            async for delivery in consumer:
                async with delivery as message:
                    got.append((message.payload, message.attempt))
                if len(got) == 3:
                    break
    assert got == [(3, 1), (1, 2), (2, 2)]


@over_backends
async def test_claims_are_renewed_while_a_body_runs(backend):
    stream = Stream("s", backend)
    await stream.append(1)
    async with StreamConsumer(stream, group="g", claim_idle=0.3) as consumer:
        async with await anext(consumer):
            async with StreamConsumer(stream, group="g", claim_idle=0.3) as other:
                with anyio.move_on_after(1.0) as scope:
                    await anext(other)
        assert scope.cancelled_caught
        while consumer.statistics().in_hand:
            await sleep(0.001)
    assert (consumer.statistics().acked, other.statistics().claimed) == (1, 0)


@over_backends
async def test_a_claim_that_has_ended_is_told_and_its_late_word_is_not_heard(backend):
    stream = Stream("s", backend)
    await stream.append(1)
    async with StreamConsumer(stream, group="g", claim_idle=30.0) as consumer:
        delivery = await anext(consumer)
        async with delivery:
            await sleep(0.01)
            taken = await stream.log.turn("g", "thief", GroupTurn(limit=1, idle=0.001))
            assert len(taken.claimed) == 1
        await sleep(0.05)
    (left,) = await stream.log.pending("g")
    assert left.consumer == "thief"


@over_backends
async def test_leaving_waits_for_what_is_at_work_and_gives_back_the_rest(backend):
    stream = Stream("s", backend)
    await stream.append_many([*range(10)])
    finished = []

    async def work(delivery: Any, started: anyio.Event) -> None:
        async with delivery as message:
            started.set()
            await sleep(0.05)
            finished.append(message.payload)

    async with anyio.create_task_group() as tasks:
        async with StreamConsumer(stream, group="g") as consumer:
            for _ in range(2):
                started = anyio.Event()
                tasks.start_soon(work, await anext(consumer), started)
                await started.wait()
        figures = consumer.statistics()
    assert finished == [0, 1]
    assert (figures.acked, figures.released, figures.in_hand) == (2, 8, 0)
    left = await stream.log.pending("g")
    assert [(each.consumer, each.deliveries) for each in left] == [("", 0)] * 8


@over_backends
async def test_what_is_at_work_for_longer_than_the_grace_is_given_back(backend):
    stream = Stream("s", backend)
    await stream.append(1)
    consumer = StreamConsumer(stream, group="g", grace=0.05)

    async def handler(message: Message) -> None:
        consumer.stop()
        await sleep(60)

    await consumer.run(handler)
    assert consumer.statistics().released == 1
    (left,) = await stream.log.pending("g")
    assert (left.consumer, left.deliveries) == ("", 0)


@pytest.mark.promise("messaging-stream-cancelled")
@over_backends
async def test_a_run_that_is_cancelled_gives_everything_back_uncounted(backend):
    stream = Stream("s", backend)
    await stream.append_many([*range(50)])
    consumer = StreamConsumer(stream, group="g")
    begun = anyio.Event()

    async def handler(message: Message) -> None:
        begun.set()
        await sleep(60)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consumer.run, handler)
        await begun.wait()
        tasks.cancel_scope.cancel()
    left = await stream.log.pending("g")
    assert {(each.consumer, each.deliveries) for each in left} <= {("", 0)}
    assert len(left) + await stream.lag("g") == 50
    got = []
    async with StreamConsumer(stream, group="g") as consumer:
        async for delivery in consumer:
            async with delivery as message:
                got.append((message.payload, message.attempt))
            if len(got) == 50:
                break
    assert sorted(got) == [(number, 1) for number in range(50)]


@over_backends
async def test_iteration_ends_when_the_consumer_is_stopped(backend):
    stream = Stream("s", backend)
    await stream.append_many([1, 2])
    got = []
    async with StreamConsumer(stream, group="g") as consumer:
        async for delivery in consumer:
            async with delivery as message:
                got.append(message.payload)
                consumer.stop()
        assert got == [1]
    consumer.stop()  # harmless
    assert consumer.statistics().released == 1


@over_backends
async def test_a_consumer_is_opened_again(backend):
    stream = Stream("s", backend)
    consumer = StreamConsumer(stream, group="g")
    for number in range(2):
        await stream.append(number)
        async with consumer:
            async with await anext(consumer) as message:
                assert message.payload == number


# --------------------------------------------------------------------------------------- outages


class Cut:
    """A log that fails, or loses answers, as long as it is told to."""

    def __init__(self, log: Any) -> None:
        self.log, self.before, self.after = log, 0, 0

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            if self.before:
                self.before -= 1
                raise BackendUnavailableError("away")
            answer = await getattr(self.log, name)(*args, **options)
            await sleep(0.0005)  # it is on its way
            if self.after and name == "turn":
                self.after -= 1
                raise BackendUnavailableError("answer lost")
            return answer

        return call


class CutBackend:
    """A backend in memory with such logs."""

    def __init__(self) -> None:
        self.memory = MemoryBackend()
        self.cuts: dict[str, Cut] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    def log(self, name: str) -> Any:
        return self.cuts.setdefault(name, Cut(self.memory.log(name)))

    async def __aenter__(self) -> Any:
        await self.memory.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.memory.__aexit__(None, None, None)


@pytest.mark.promise("messaging-stream-outage")
@pytest.mark.parametrize("kind", ["before", "after"])
async def test_an_outage_ends_nothing_and_a_lost_answer_loses_nothing(kind):
    async with CutBackend() as backend:
        stream = Stream("s", backend)
        await stream.append_many([*range(30)])
        got = []

        async def handler(message: Message) -> None:
            got.append(message.payload)
            if message.payload in {5, 15}:
                setattr(backend.cuts["s"], kind, 3)
            await sleep(0.001)
            if len(got) == 30:
                consumer.stop()

        consumer = StreamConsumer(stream, group="g", prefetch=4)
        with capture_events() as events:
            await consumer.run(handler, concurrency=2)
        assert sorted(got) == [*range(30)]
        assert await stream.log.pending("g") == []
        away = [each for each in events if isinstance(each, StreamInterrupted)]
        back = [each for each in events if isinstance(each, StreamResumed)]
        assert len(away) == len(back) >= 1


@over_backends
async def test_a_group_that_is_lost_is_made_again(backend):
    stream = Stream("s", backend)
    await stream.append(1)
    async with StreamConsumer(stream, group="g") as consumer:
        async with await anext(consumer):
            pass
        await stream.log.delete_group("g")
        async with await anext(consumer) as message:
            assert message.payload == 1


# ------------------------------------------------------------------------ everywhere, and bad input


def _prepared() -> tuple[Stream, StreamConsumer]:
    backend = open_backend("memory://")
    stream = Stream("s", backend)
    return stream, StreamConsumer(stream, group="g", backoff=AT_ONCE, grace=1.0, claim_idle=1.0)


@pytest.mark.promise("messaging-stream-cancel-everywhere")
@pytest.mark.parametrize("keyed", [False, True])
def test_cancelled_at_any_await_it_leaves_nothing_and_loses_nothing(keyed):
    def scenario() -> Trial:
        stream, consumer = _prepared()
        got: list[int] = []

        async def handler(message: Message) -> None:
            await sleep(0.001)
            got.append(message.payload)
            if len(got) == 4:
                consumer.stop()

        async def work() -> None:
            await stream.append_many([*range(4)], key="a")
            await consumer.run(handler, key=(lambda message: message.key) if keyed else None)

        async def whole() -> None:
            async with stream:
                try:
                    await work()
                finally:
                    with anyio.CancelScope(shield=True):
                        left.append(await _unsettled(stream, await stream.length()))

        left: list[int] = []

        def check() -> None:
            assert balanced(consumer.statistics())
            assert consumer.statistics().in_hand == 0

        return Trial(whole(), check)

    cancel_everywhere(scenario, minimum=4)


async def _unsettled(stream: Stream, length: int) -> int:
    try:
        pending = await stream.log.pending("g")
    except ValueError:
        return length
    assert not any(each.consumer for each in pending), "nothing stays in the hands of one that left"
    return len(pending) + await stream.lag("g")


@pytest.mark.promise("messaging-stream-fail-everywhere")
@pytest.mark.parametrize("keyed", [False, True])
def test_a_handler_or_key_that_fails_at_any_call_stops_nothing(keyed):
    def scenario(fault) -> Trial:
        stream, consumer = _prepared()
        got: list[int] = []

        async def handler(message: Message) -> None:
            fault()
            await sleep(0.001)
            got.append(message.payload)

        def key_of(message: Message) -> str | None:
            fault()
            return message.key

        async def work() -> None:
            async with stream, anyio.create_task_group() as tasks:
                await stream.append_many([*range(4)], key="a")
                tasks.start_soon(lambda: consumer.run(handler, key=key_of if keyed else None))
                while consumer.statistics().acked + consumer.statistics().dead < 4:
                    await sleep(0.01)
                consumer.stop()

        def check() -> None:
            assert balanced(consumer.statistics())

        return Trial(work(), check)

    fail_everywhere(scenario, minimum=4)
    assert issubclass(InjectedError, Exception)


@pytest.mark.promise("messaging-stream-seeds")
def test_every_message_is_accounted_for_under_200_seeds():
    async def scenario() -> None:
        async with CutBackend() as backend:
            stream = Stream("s", backend)
            dice = rng()
            done: dict[str | None, list[int]] = defaultdict(list)
            consumers = [
                StreamConsumer(
                    stream, group="g", prefetch=5, backoff=Constant(0.01), max_deliveries=9
                )
                for _ in range(3)
            ]

            async def handler(message: Message) -> None:
                await sleep(dice.random() * 0.01)
                roll = dice.random()
                if roll < 0.1:
                    raise ValueError("x")
                if roll < 0.15:
                    raise RetryLater(0.01)
                if roll < 0.2:
                    backend.cuts["s"].after = 1
                done[message.key].append(message.payload)

            async with anyio.create_task_group() as tasks:
                for each in consumers:
                    tasks.start_soon(_run, each, handler)
                for number in range(30):
                    while True:
                        try:
                            await stream.append(number, key=f"k{number % 3}")
                            break
                        except BackendUnavailableError:
                            await sleep(0.01)
                    if number == 15:
                        consumers[dice.randrange(3)].stop()
                while sum(each.statistics().acked for each in consumers) < 30:
                    await sleep(0.05)
                for each in consumers:
                    each.stop()
            assert all(balanced(each.statistics()) for each in consumers)
            assert all(numbers == sorted(numbers) for numbers in done.values())
            assert sum(map(len, done.values())) == 30

    explore(scenario, range(200))


@pytest.mark.promise("messaging-bad-input")
async def test_bad_input_gives_one_clear_error():
    stream = Stream("s", "memory://")
    for options, kind in (
        ({"group": ""}, ValueError),
        ({"group": wrong(3)}, TypeError),
        ({"group": "g", "prefetch": 0}, ValueError),
        ({"group": "g", "max_deliveries": 0}, ValueError),
        ({"group": "g", "claim_idle": nan}, ValueError),
        ({"group": "g", "grace": -1}, ValueError),
        ({"group": "g", "backoff": wrong(3)}, TypeError),
        ({"group": "g", "upcasters": wrong([])}, TypeError),
    ):
        with pytest.raises(kind):
            StreamConsumer(stream, **options)
    with pytest.raises(TypeError):
        StreamConsumer(wrong("s"), group="g")
    consumer = StreamConsumer(stream, group="g")
    assert consumer.stream is stream
    assert consumer.statistics().claimed == 0
    with pytest.raises(TypeError):
        await consumer.run(wrong(3))
    with pytest.raises(ValueError):
        await consumer.run(print, concurrency=0)
    with pytest.raises(TypeError):
        await consumer.run(print, key=wrong(3))
    with pytest.raises(ClosedError):
        await anext(consumer)
    async with consumer:
        with pytest.raises(RuntimeError, match="open already"):
            await consumer.run(print)
        with pytest.raises(RuntimeError, match="open already"):
            await consumer.__aenter__()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consumer.run, print)
        while not consumer.statistics().claiming:
            await sleep(0.001)
        with pytest.raises(RuntimeError, match="runs a handler"):
            await anext(consumer)
        consumer.stop()


def test_the_headline_names():
    assert aiopatterns.Stream is Stream
    assert aiopatterns.StreamConsumer is StreamConsumer


def test_a_retry_waits_in_virtual_time():
    async def scenario() -> list[int]:
        attempts = []
        async with open_backend("memory://") as backend:
            stream = Stream("s", backend)
            await stream.append(1)
            consumer = StreamConsumer(stream, group="g", backoff=Constant(3_600.0))

            async def handler(message: Message) -> None:
                attempts.append(message.attempt)
                if message.attempt < 3:
                    raise ValueError("x")
                consumer.stop()

            await consumer.run(handler)
        return attempts

    assert simulate(scenario) == [1, 2, 3]


def test_a_consumer_that_was_idle_for_long_hears_of_the_next_message_at_once():
    async def scenario() -> float:
        async with open_backend("memory://") as backend:
            stream = Stream("s", backend)
            async with StreamConsumer(stream, group="g") as consumer:
                await sleep(100.0)
                appended = monotonic()
                await stream.append(1)
                async with await anext(consumer):
                    return monotonic() - appended

    assert simulate(scenario) < 0.001
