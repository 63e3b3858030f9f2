"""Owners: errors leave bare, nothing outlives the block, and the block can be entered again."""

from __future__ import annotations

import asyncio
import gc
import warnings
from contextlib import AsyncExitStack

import anyio
import pytest

from aiopatterns.core import clock
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.lifecycle import Lifecycle, Owner, OwnerState
from aiopatterns.testing import Trial, cancel_everywhere, fail_everywhere, simulate


class Probe(Owner):
    """An owner with one background task, and a handle that must be settled."""

    __slots__ = ("background", "drained", "fail_drain", "fail_start", "log", "settled")

    def __init__(self, name="probe"):
        super().__init__(name)
        self.background = None
        self.fail_start = self.fail_drain = None
        self.log = []
        self.settled = 0

    def statistics(self):
        return (self.state, self.settled)

    async def _start(self, tasks):
        assert self.state is OwnerState.RUNNING
        tasks.start_soon(self._run)
        await clock.yield_now()
        if self.fail_start:
            raise self.fail_start

    async def _drain(self):
        assert self.state is OwnerState.DRAINING
        await clock.yield_now()
        if self.fail_drain:
            raise self.fail_drain
        self.log.append("drained")

    def _settle(self):
        assert self.state is OwnerState.STOPPED
        self.settled += 1

    async def _run(self):
        try:
            if self.background is not None:
                await self.background()
            await anyio.sleep_forever()
        finally:
            self.log.append("task ended")


class Plain(Owner):
    """An owner that adds nothing."""

    __slots__ = ()

    def statistics(self):
        return None


def _raises(error):
    """Return an exit that raises ``error``."""

    async def leave(kind, reason, traceback):
        await clock.yield_now()
        raise error

    return leave


async def test_leaving_normally_drains_then_ends_the_tasks():
    owner = Probe()
    assert owner.state is OwnerState.CREATED
    async with owner as entered:
        assert entered is owner
        assert owner.statistics() == (OwnerState.RUNNING, 0)
    assert owner.log == ["drained", "task ended"]
    assert owner.statistics() == (OwnerState.STOPPED, 1)


async def test_it_says_whether_it_is_open():
    owner = Plain("plain")
    assert not owner.is_open
    async with owner:
        assert owner.is_open
    assert not owner.is_open


async def test_an_owner_may_have_nothing_to_do():
    owner = Plain("plain")
    async with owner:
        pass
    assert owner.state is OwnerState.STOPPED


@pytest.mark.promise("core-owner-bare")
@pytest.mark.parametrize(
    "error",
    [ValueError("no"), ExceptionGroup("mine", [ValueError("no")]), KeyboardInterrupt()],
    ids=["error", "group", "interrupt"],
)
def test_the_bodys_error_leaves_bare_and_identical(error):
    owner = Probe()

    async def run():
        try:
            async with owner:
                try:
                    raise OSError("before")
                except OSError as before:
                    raise error from before
        except BaseException as caught:
            return caught

    caught = simulate(run)
    assert caught is error
    assert isinstance(caught.__cause__, OSError)
    assert not hasattr(caught, "__notes__")
    assert owner.log == ["task ended"]
    assert owner.settled == 1


@pytest.mark.promise("core-owner-bare")
@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError(), anyio.EndOfStream()])
async def test_an_error_that_passes_several_owners_is_not_its_own_context(error):
    # An exit stack makes what a manager raises the consequence of what it was given.
    with pytest.raises(type(error)) as caught:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Probe("outer"))
            await stack.enter_async_context(Probe("inner"))
            stack.push_async_exit(_raises(error))
            raise LookupError
    assert caught.value is error
    assert isinstance(error.__context__, LookupError)
    assert error.__context__.__context__ is None


async def test_a_failing_background_task_cancels_the_body_and_leaves_bare():
    error = KeyError("lost")
    error.__cause__ = OSError("why")
    error.__context__ = ValueError("while")

    async def fail():
        await clock.yield_now()
        raise error

    owner = Probe()
    owner.background = fail
    cancelled = False
    with pytest.raises(KeyError) as caught:
        async with owner:
            try:
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                cancelled = True
                raise
    assert cancelled
    assert caught.value is error
    assert str(error.__cause__) == "why"
    assert str(error.__context__) == "while"
    assert owner.log == ["task ended"]
    assert owner.settled == 1


async def test_a_background_error_beside_the_bodys_is_a_note():
    async def fail_in_cleanup():
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyError("lost")

    owner = Probe()
    owner.background = fail_in_cleanup
    with pytest.raises(ValueError, match="mine") as caught:
        async with owner:
            raise ValueError("mine")
    assert caught.value.__notes__ == ["a background task failed as well: KeyError('lost')"]


async def test_several_background_errors_leave_as_a_group():
    class Two(Probe):
        __slots__ = ()

        async def _start(self, tasks):
            tasks.start_soon(self.background)
            tasks.start_soon(self.background)

    async def fail():
        raise KeyError("lost")

    owner = Two()
    owner.background = fail
    with pytest.raises(ExceptionGroup) as caught:
        async with owner:
            await anyio.sleep_forever()
    assert len(caught.value.exceptions) == 2
    assert caught.value.__cause__ is None


async def test_a_background_error_that_the_body_outruns_still_leaves():
    async def fail():
        raise KeyError("lost")

    class Quick(Probe):
        __slots__ = ()

        async def _drain(self): ...

    owner = Quick()
    owner.background = fail
    with pytest.raises(KeyError):
        async with owner:
            pass


@pytest.mark.parametrize("where", ["fail_start", "fail_drain"])
async def test_an_error_in_start_or_drain_leaves_bare(where):
    error, owner = KeyError("lost"), Probe()
    setattr(owner, where, error)
    with pytest.raises(KeyError) as caught:
        async with owner:
            assert where == "fail_drain"
    assert caught.value is error
    assert owner.log == ["task ended"]
    assert owner.settled == 1
    assert owner.state is OwnerState.STOPPED
    setattr(owner, where, None)
    async with owner:
        pass


@pytest.mark.parametrize("where", ["_start", "_drain"])
async def test_an_error_of_an_owner_without_tasks_leaves_bare(where):
    error = KeyError("lost")

    async def fail(self, *tasks):
        raise error

    owner = type("Failing", (Plain,), {where: fail})("failing")
    with pytest.raises(KeyError) as caught:
        async with owner:
            assert where == "_drain"
    assert caught.value is error
    assert owner.state is OwnerState.STOPPED


@pytest.mark.promise("core-owner-reentry")
def test_it_can_be_entered_again_on_another_loop():
    owner = Probe()

    async def run():
        for _ in range(2):
            async with owner:
                pass

    simulate(run)
    asyncio.run(run())
    assert owner.settled == 4
    assert owner.state is OwnerState.STOPPED


@pytest.mark.promise("core-owner-reentry")
async def test_a_second_concurrent_entry_raises_and_disturbs_nothing():
    owner = Probe("mail")
    async with owner:
        with pytest.raises(RuntimeError, match="Probe 'mail' is open already; enter it only once"):
            async with owner:
                pytest.fail("entered twice")
        assert owner.state is OwnerState.RUNNING
    assert owner.settled == 1


async def test_entering_while_it_is_being_left_raises():
    async def slow_end():
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await leaving.wait()

    owner, leaving = Probe(), anyio.Event()
    owner.background = slow_end

    async def own():
        async with owner:
            pass

    task = asyncio.create_task(own())
    await anyio.wait_all_tasks_blocked()
    with pytest.raises(RuntimeError, match="open already"):
        await owner.__aenter__()
    leaving.set()
    await task


@pytest.mark.parametrize("kind", ["native", "scope", "timeout"])
def test_a_cancellation_anywhere_leaves_nothing_behind(kind):
    def factory():
        owner = Probe()

        async def work():
            async with owner:
                await clock.yield_now()
                await anyio.sleep(1)

        def check():
            assert owner.settled == 1
            assert owner.state is OwnerState.STOPPED
            assert owner.log.count("task ended") == 1

        return Trial(work(), check)

    assert cancel_everywhere(factory, kinds=(kind,), minimum=4).positions >= 4


def test_a_native_cancel_of_the_body_stays_a_cancel():
    async def run():
        owner = Probe()

        async def own():
            async with owner:
                await anyio.sleep_forever()

        task = asyncio.create_task(own())
        await anyio.wait_all_tasks_blocked()
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        return owner.settled

    assert simulate(run) == 1


def test_a_fault_anywhere_leaves_bare():
    def factory(fault):
        owner = Probe()

        async def background():
            await clock.yield_now()
            fault()

        async def work():
            owner.background = background
            async with owner:
                fault()
                await anyio.sleep(1)
                fault()

        def check():
            assert owner.settled == 1

        return Trial(work(), check)

    assert fail_everywhere(factory, minimum=3).positions == 3


async def test_an_owner_that_is_not_open_teaches_how_to_open_it():
    owner = Probe("mail")
    with pytest.raises(ClosedError, match=r"inside 'async with Probe\(\.\.\.\) as probe:'"):
        owner._open_group()
    async with owner:
        owner._open_group().start_soon(anyio.sleep, 0)
    with pytest.raises(ClosedError, match="Probe 'mail' is not open"):
        owner._open_group()
    with pytest.raises(ClosedError):
        await owner.__aexit__(None, None, None)


def test_an_owner_that_was_never_left_is_reported():
    async def forget():
        owner = Plain("mail")
        await owner.__aenter__()
        group = owner._open_group()
        del owner
        gc.collect()
        await group.__aexit__(None, None, None)

    with pytest.warns(ResourceWarning, match="Plain 'mail' was never closed; use 'async with'"):
        asyncio.run(forget())


def test_owners_that_are_closed_or_never_opened_go_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Plain("mail")
        with pytest.raises(ValueError):
            Plain("")
        gc.collect()


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize(("wrong", "error"), [("", ValueError), (None, TypeError)], ids=repr)
def test_an_owner_has_a_name(wrong, error):
    with pytest.raises(error, match="name must be a non-empty string"):
        Plain(wrong)


async def test_a_lifecycle_leaves_the_name_state_to_those_that_mean_another():
    class Named(Lifecycle):
        def statistics(self):
            return None

        def state(self, name):
            return name

    owner = Named("named")
    async with owner:
        assert owner.state("db") == "db"
