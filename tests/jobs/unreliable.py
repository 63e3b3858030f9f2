"""A backend whose queues fail: before a call or after it, late, or for a while altogether."""

from __future__ import annotations

from typing import Any

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.core.clock import Random, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError


class Faults:
    """What goes wrong between one worker and the store.

    Args:
        dice: Decides.
        before: Share of calls that do not arrive.
        after: Share of calls whose answer is lost.
        late: Share of calls that take up to ``longest`` seconds.
        doubled: Share of calls that the store gets twice; the first answer is the one that comes.
    """

    def __init__(
        self, dice: Random, *, before=0.0, after=0.0, late=0.0, doubled=0.0, longest=0.5
    ) -> None:
        self.dice = dice
        self.before, self.after, self.late, self.longest = before, after, late, longest
        self.doubled = doubled
        self.away = False
        self.calls = self.failed = 0

    async def __call__(self, call) -> Any:
        """Make ``call``, or fail."""
        self.calls += 1
        dice = self.dice
        if self.late and dice.random() < self.late:
            await sleep(dice.random() * self.longest)
        self.check(self.before)
        answer = await call()
        if self.doubled and dice.random() < self.doubled:
            await call()
        if self.late and dice.random() < self.late:
            await sleep(dice.random() * self.longest)
        self.check(self.after)
        return answer

    def check(self, share: float) -> None:
        if self.away or (share and self.dice.random() < share):
            self.failed += 1
            kind = BackendUnavailableError if self.dice.random() < 0.8 else BackendError
            raise kind("injected")


class UnreliableQueue:
    """A queue whose workers' calls go through faults; producers' calls do not."""

    def __init__(self, queue: Any, faults: Faults) -> None:
        self._queue = queue
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    async def step(self, turn: Any) -> Any:
        return await self._faults(lambda: self._queue.step(turn))

    async def held(self, worker: str) -> Any:
        return await self._faults(lambda: self._queue.held(worker))

    async def wait(self, worker: str, *, timeout: float) -> bool:
        self._faults.check(self._faults.before)
        woken = await self._queue.wait(worker, timeout=timeout)
        self._faults.check(self._faults.after)
        return woken


class UnreliableBackend:
    """A memory backend as one worker sees it."""

    def __init__(self, backend: MemoryBackend, faults: Faults) -> None:
        self._backend = backend
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def queue(self, name: str) -> Any:
        return UnreliableQueue(self._backend.queue(name), self._faults)

    async def __aenter__(self) -> Any:
        await self._backend.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._backend.__aexit__(None, None, None)
