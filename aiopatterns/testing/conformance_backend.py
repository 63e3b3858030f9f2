"""Conformance of :class:`~aiopatterns.backends.protocols.Backend`: its life, and every call of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from anyio import create_task_group, fail_after

from aiopatterns.backends.queue import NewJob, Turn
from aiopatterns.backends.records import Change, GroupTurn
from aiopatterns.core.clock import yield_now
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.rate import Rate
from aiopatterns.testing.conformance_base import PATIENCE, Conformance, Hand, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from aiopatterns.backends.protocols import Backend

__all__ = ["BackendConformance"]

RATE = Rate(5, per=3600)


class BackendConformance(Conformance):
    """Tests of the backend as a whole; see :class:`Conformance` for what a subclass brings."""

    async def test_it_says_where_it_is(self, backend: Backend) -> None:
        """``url`` and scheme."""
        assert "://" in backend.url
        assert isinstance(backend.scheme, str)

    async def test_it_counts_its_users(self, backend: Backend) -> None:
        """``statistics``: "Return the figures so far; no I/O, callable at any time"."""
        assert backend.statistics().users == 1
        async with backend:
            assert backend.statistics().users == 2
        await backend.__aexit__(None, None, None)
        try:
            figures = backend.statistics()
            assert (figures.url, figures.users) == (backend.url, 0)
            assert figures.in_flight == 0
        finally:
            await backend.__aenter__()

    async def test_its_time_goes_on(self, backend: Backend) -> None:
        """``time``: "Return the server's time in seconds since 1970."."""
        before = await backend.time()
        await self.pause(1)
        after = await backend.time()
        assert after - before >= self.life(0.9)
        assert before > 0

    async def test_the_last_exit_closes(self, backend: Backend) -> None:
        """Backend: "The first entry opens, the last exit closes; entries may be concurrent."."""
        await backend.kv.set("k", b"v")
        async with backend as again:
            assert again is backend
            async with backend:
                pass
            assert await backend.kv.get("k") == b"v"
        assert await backend.kv.get("k") == b"v"

        async def use(number: int) -> None:
            async with backend:
                assert await backend.kv.incr("n") >= 1
                await self.pause(0.01 * number)

        async with create_task_group() as group:
            for number in range(20):
                group.start_soon(use, number)
        assert await backend.kv.get("n") == b"20"

    async def test_a_closed_backend_refuses_every_call(self, backend: Backend) -> None:
        """Closed: "every call on a backend that is not open raises ``ClosedError``"."""
        calls = await _calls(backend)
        await backend.__aexit__(None, None, None)
        try:
            for name, call in calls.items():
                await _refused(name, call)
            for name, call in (await _calls(backend, prepared=True)).items():
                await _refused(name, call)
        finally:
            await backend.__aenter__()
        await backend.kv.set("k", b"v")
        assert await backend.kv.get("k") == b"v"

    async def test_it_can_be_opened_again(self, backend: Backend) -> None:
        """Backend: "After that it can be opened again"; what it gave out before is good again."""
        kv, queue = backend.kv, backend.queue("q")
        for number in range(5):
            await backend.__aexit__(None, None, None)
            await backend.__aenter__()
            await kv.set("k", b"%d" % number)
            assert await backend.kv.get("k") == b"%d" % number
            await queue.enqueue([NewJob(str(number), b"")])
            assert await Hand(queue, str(number)).work_off() == [str(number)]

    async def test_kinds_do_not_meet(self, backend: Backend) -> None:
        """A name belongs to its kind: a queue, a log, a lease ... may have the same."""
        for name in ("x", "a:b", "{x}", "a}b", "a b", "\u00e9\u4e2d", "x" * 1024):
            await backend.kv.set(name, b"v")
            await backend.queue(name).enqueue([NewJob(name, b"v")])
            await backend.log(name).append_many([b"v"])
            held = await backend.lease(name).try_acquire(ttl=600)
            assert held is not None
            assert (await backend.limiter(name).acquire(name, RATE)).allowed
            assert await backend.directory(name).put(name, b"v", ttl=600)
            assert await backend.kv.get(name) == b"v"
            assert await Hand(backend.queue(name), name).work_off() == [name]
            assert await backend.log(name).length() == 1
            assert await held.renew()
            assert (await backend.directory(name).snapshot()).members == {name: b"v"}

    async def test_bad_names_are_refused(self, backend: Backend) -> None:
        """Names are text of 1 to 1,024 bytes; anything else "names the parameter"."""
        makers = (_queue, _log, _lease, _limiter, _directory)
        for maker in makers:
            for bad in ("", "x" * 1025, "\u00e9" * 513):
                await refusal(maker(backend, bad), (ValueError,), "name")
            await refusal(maker(backend, cast("str", b"name")), (TypeError,), "name")

    async def test_any_call_may_be_cancelled(self, backend: Backend) -> None:
        """Cancellation: "a cancelled call may have happened or not"; the next one works."""
        for turns in (0, 1, 2, 3, 5, 8):
            for call in (await _calls(backend)).values():
                await _cut(call, turns)
        with fail_after(PATIENCE):
            for name, call in (await _calls(backend)).items():
                answer = await call()
                assert answer is not NotImplemented, name

    async def test_calls_cancelled_together(self, backend: Backend) -> None:
        """Cancellation: answers of others are not mixed up by it."""
        await backend.kv.set_many({str(number): b"%d" % number for number in range(50)})
        got: dict[int, bytes | None] = {}

        async def read(number: int) -> None:
            got[number] = await backend.kv.get(str(number))

        for turns in range(8):
            async with create_task_group() as others, create_task_group() as doomed:
                for number in range(50):
                    (doomed if number % 2 else others).start_soon(read, number)
                for _ in range(turns):
                    await yield_now()
                doomed.cancel_scope.cancel()
        assert {number for number in got if number % 2 == 0} == set(range(0, 50, 2))
        assert all(value == b"%d" % number for number, value in got.items())

    async def test_nothing_is_left_half_done(self, backend: Backend) -> None:
        """Cancellation: "nothing is left half done"."""
        queue, log = backend.queue("q"), backend.log("l")
        for turns in range(12):
            jobs = [NewJob(f"{turns}-{each}", b"") for each in range(3)]
            await _cut(partial(queue.enqueue, jobs), turns)
            await _cut(partial(log.append_many, [b"1", b"2", b"3"]), turns)
            states = await queue.states([job.id for job in jobs])
            assert len(set(states.values())) == 1
        await self.pause(1)
        assert await log.length() % 3 == 0
        assert sum((await queue.counts())[:4]) % 3 == 0

    async def test_a_cancelled_step_loses_no_job(self, backend: Backend) -> None:
        """A turn whose caller was cancelled has claimed nothing, or its claim is in ``held``."""
        queue = backend.queue("q")
        await queue.enqueue([NewJob(str(number), b"") for number in range(24)])
        for turns in range(12):
            turn = Turn("w", turns + 1, 600, free=2)
            await _cut(partial(queue.step, turn), turns)
        await self.pause(1)
        held = [job.id for job in await queue.held("w")]
        rest = [job.id for job in await Hand(queue, "v").take(30)]
        assert sorted([*held, *rest], key=int) == [str(number) for number in range(24)]

    async def test_a_cancelled_lease_is_held_by_nobody_for_long(self, backend: Backend) -> None:
        """A lease that was taken for a cancelled caller ends by its time."""
        for turns in range(8):
            lease = backend.lease(f"l-{turns}")
            await _cut(partial(lease.try_acquire, ttl=self.life(1)), turns)
        await self.pause(2)
        for turns in range(8):
            assert await backend.lease(f"l-{turns}").try_acquire(ttl=1) is not None


async def _cut(call: Callable[[], Awaitable[object]], turns: int) -> None:
    """Cancel ``call`` so many turns of the loop after it was started."""
    async with create_task_group() as group:
        group.start_soon(_ignore, call)
        for _ in range(turns):
            await yield_now()
        group.cancel_scope.cancel()


async def _ignore(call: Callable[[], Awaitable[object]]) -> None:
    await call()


async def _refused(name: str, call: Callable[[], Awaitable[object]]) -> None:
    try:
        answer = await call()
    except ClosedError:
        return
    raise AssertionError(f"{name} answered {answer!r} though the backend is closed")


async def _entered(manager: AbstractAsyncContextManager[object]) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(manager)


async def _calls(
    backend: Backend, *, prepared: bool = False
) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every call of a backend, each a function without arguments that may be called again."""
    if not prepared:
        await backend.log("l").create_group("g")
    return {
        **_kv_calls(backend),
        **_queue_calls(backend),
        **_log_calls(backend),
        **_group_calls(backend),
        "lease.try_acquire": lambda: backend.lease("l").try_acquire(ttl=0.001),
        "limiter.acquire": lambda: backend.limiter("l").acquire("k", RATE),
        "directory.put": lambda: backend.directory("d").put("m", b"v", ttl=600),
        "directory.remove": lambda: backend.directory("d").remove("m"),
        "directory.snapshot": lambda: backend.directory("d").snapshot(),
        "directory.watch": lambda: _entered(backend.directory("d").watch()),
        "time": backend.time,
    }


def _kv_calls(backend: Backend) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "kv.get": lambda: backend.kv.get("k"),
        "kv.get_many": lambda: backend.kv.get_many(["k"]),
        "kv.set": lambda: backend.kv.set("k", b"v"),
        "kv.set_many": lambda: backend.kv.set_many({"k": b"v"}),
        "kv.delete": lambda: backend.kv.delete("k"),
        "kv.incr": lambda: backend.kv.incr("number"),
        "kv.compare_and_set": lambda: backend.kv.compare_and_set("k", b"v", b"w", notify="c"),
        "kv.change_many": lambda: backend.kv.change_many([Change("k", b"w", notify="c")]),
        "pubsub.publish": lambda: backend.pubsub.publish("c", b"v"),
        "pubsub.subscribe": lambda: _entered(backend.pubsub.subscribe("c", patterns=["d*"])),
    }


def _queue_calls(backend: Backend) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "queue.enqueue": lambda: backend.queue("calls").enqueue([NewJob("a", b"")]),
        "queue.step": lambda: backend.queue("calls").step(Turn("w", 1, 600)),
        "queue.held": lambda: backend.queue("calls").held("w"),
        "queue.wait": lambda: backend.queue("calls").wait("w", timeout=0.001),
        "queue.cancel": lambda: backend.queue("calls").cancel(["a"]),
        "queue.states": lambda: backend.queue("calls").states(["a"]),
        "queue.outcomes": lambda: backend.queue("calls").outcomes(["a"]),
        "queue.progress": lambda: backend.queue("calls").progress("a"),
        "queue.counts": lambda: backend.queue("calls").counts(),
        "queue.page": lambda: backend.queue("calls").page("queued"),
        "queue.requeue": lambda: backend.queue("calls").requeue(["a"]),
        "queue.purge": lambda: backend.queue("calls").purge(),
        "queue.pause": lambda: backend.queue("calls").pause(paused=False),
        "queue.watch": lambda: _entered(backend.queue("calls").watch()),
    }


def _log_calls(backend: Backend) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "log.append_many": lambda: backend.log("l").append_many([b"1", b"2", b"3"]),
        "log.read": lambda: backend.log("l").read(),
        "log.length": lambda: backend.log("l").length(),
        "log.trim": lambda: backend.log("l").trim(max_length=3),
        "log.create_group": lambda: backend.log("l").create_group("h"),
        "log.delete_group": lambda: backend.log("l").delete_group("h"),
    }


def _group_calls(backend: Backend) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "log.turn": lambda: backend.log("l").turn("g", "c", GroupTurn(limit=1)),
        "log.held": lambda: backend.log("l").held("g", "c"),
        "log.wait": lambda: backend.log("l").wait("g", timeout=0.001),
        "log.pending": lambda: backend.log("l").pending("g"),
        "log.lag": lambda: backend.log("l").lag("g"),
        "log.dead": lambda: backend.log("l").dead("g"),
        "log.requeue": lambda: backend.log("l").requeue("g", ["0-1"]),
    }


async def _queue(backend: Backend, name: str) -> Any:
    return await backend.queue(name).counts()


async def _log(backend: Backend, name: str) -> Any:
    return await backend.log(name).length()


async def _lease(backend: Backend, name: str) -> Any:
    return await backend.lease(name).try_acquire(ttl=1)


async def _limiter(backend: Backend, name: str) -> Any:
    return await backend.limiter(name).acquire("k", RATE)


async def _directory(backend: Backend, name: str) -> Any:
    return await backend.directory(name).snapshot()
