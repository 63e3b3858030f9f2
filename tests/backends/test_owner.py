from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.owner import BackendOwner
from aiopatterns.testing import Trial, cancel_everywhere

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from aiopatterns.backends.protocols import Backend


class Lender(BackendOwner):
    """Tells what happens to it, and whether its backend is open then."""

    __slots__ = ("_fails", "backend", "steps")

    def __init__(self, backend: Backend, *, fails: str = "") -> None:
        super().__init__("lender")
        self.backend = backend
        self._fails = fails
        self.steps: list[tuple[str, int]] = []

    def statistics(self) -> None:
        return None

    async def _start(self, tasks: TaskGroup) -> None:
        await self._step("start")

    async def _drain(self) -> None:
        await self._step("drain")

    async def _give_back(self) -> None:
        await self._step("give back")

    async def _step(self, name: str) -> None:
        await anyio.sleep(0)
        self.steps.append((name, self.backend.statistics().users))
        if name == self._fails:
            raise KeyError(name)


async def test_the_backend_is_open_from_before_the_start_until_after_all_was_given_back():
    backend = open_backend("memory://")
    owner = Lender(backend)
    for _ in range(2):
        async with owner:
            assert owner.is_open
        assert owner.steps == [("start", 1), ("drain", 1), ("give back", 1)]
        assert backend.statistics().users == 0
        owner.steps.clear()


async def test_a_backend_of_somebody_else_stays_open():
    async with open_backend("memory://") as backend:
        async with Lender(backend) as owner:
            assert backend.statistics().users == 2
        assert owner.steps[-1] == ("give back", 2)
        assert backend.statistics().users == 1


@pytest.mark.parametrize("step", ["start", "drain", "give back"])
async def test_what_fails_leaves_no_backend_open(step):
    backend = open_backend("memory://")
    owner = Lender(backend, fails=step)
    with pytest.raises(KeyError, match=step):
        async with owner:
            pass
    assert owner.steps[-1][0] == "give back"
    assert (backend.statistics().users, owner.is_open) == (0, False)


async def test_entering_twice_is_an_error_that_takes_nothing_from_who_is_inside():
    backend = open_backend("memory://")
    async with Lender(backend) as owner:
        with pytest.raises(RuntimeError, match="open already"):
            await owner.__aenter__()
        assert owner.steps == [("start", 1)]
        assert backend.statistics().users == 1
    assert owner.steps[1:] == [("drain", 1), ("give back", 1)]


def test_cancelled_anywhere_the_backend_is_closed():
    def scenario() -> Trial:
        backend = open_backend("memory://")
        owner = Lender(backend)

        async def work() -> None:
            async with owner:
                await anyio.sleep(0)

        def check() -> None:
            assert backend.statistics().users == 0

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=3)
