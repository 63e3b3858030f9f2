"""Fleet: of all processes that miss a key at the same time, one loads it.

::

    A: take k --> has it       loads, fills ---> gives it back, "done" is published
    B: take k --> taken: listens for "done" of k ------------> reads again: there it is
    C: take k --> taken: listens ... or looks again by itself, after 20, 40, ... 200 ms

Who waits holds no connection and asks the server hardly ever. A process that dies while it loads
is followed by another one when its lease is over, :data:`LEASE` seconds later; one that loads for
longer renews it. When a load fails, those who wait try one after the other, as they come.

This is no lock that anything relies on. If a lease is lost there is one load more, and which of
the two is stored is decided by the comparison in the fill, as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from anyio import move_on_after

from aiopatterns.backends.records import DELETE, Change
from aiopatterns.core.clock import rng
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiopatterns.backends.protocols import Backend, Subscribed
    from aiopatterns.cache.gate import Gate

__all__ = ["LEASE", "Fleet"]

#: Seconds for which a turn is held without being renewed.
LEASE: Final = 3.0
_FIRST_LOOK: Final = 0.02
_LAST_LOOK: Final = 0.2
_TOKEN_BYTES: Final = 16


@final
class Fleet:
    """The turns of one cache: who may load what.

    Args:
        backend: Where they are kept.
        gate: How it is asked.
    """

    __slots__ = ("_backend", "_due", "_gate", "_given", "_held")

    def __init__(self, backend: Backend, gate: Gate) -> None:
        self._backend = backend
        self._gate = gate
        self._held: dict[bytes, str] = {}
        self._given: dict[bytes, str] = {}
        self._due = Waiters()

    async def take(self, name: str) -> bytes | None:
        """Take the turn ``name``; return its token, or None if somebody has it.

        Without a server everybody has every turn.

        Cancellation: the turn, which may be taken, is given back.
        """
        token = rng().randbytes(_TOKEN_BYTES)
        try:
            taken = await self._change([Change(name, token, expected=None, ttl=LEASE)])
        except BaseException:
            self._held[token] = name  # perhaps; what is not there is given back in vain
            self.give_back(token)
            raise
        if taken is None:
            return token
        if not taken[0]:
            return None
        self._held[token] = name
        return token

    def give_back(self, token: bytes) -> None:
        """Give a turn back that was taken; never waits: the keeper tells the server."""
        name = self._held.pop(token, None)
        if name is not None:
            self._given[token] = name
            self._due.wake()

    def give_all_back(self) -> None:
        """Give all turns back, for nobody loads any more."""
        for token in list(self._held):
            self.give_back(token)

    async def wait(self, name: str, look: Callable[[], Awaitable[bool]]) -> bytes | None:
        """Wait until the turn can be taken, or ``look`` finds that there is no need any more.

        Args:
            name: The turn.
            look: Asked after each time that somebody was done, and now and then.

        Returns:
            The token, or None if there is no need.

        Cancellation: as :meth:`take`.
        """
        listening = self._backend.pubsub.subscribe(name, capacity=1)
        notices = await self._gate.call(listening.__aenter__)
        if notices is None:
            return await self.take(name)
        try:
            return await self._listen(name, notices, look)
        finally:
            await listening.__aexit__(None, None, None)

    async def due(self) -> None:
        """Wait until something was given back that the server was not told of."""
        if not self._given:
            await self._due.wait()

    async def keep(self) -> None:
        """Tell the server what was given back, and hold on to the rest."""
        given, self._given = self._given, {}
        changes = [
            Change(name, DELETE, expected=token, notify=name) for token, name in given.items()
        ]
        changes += [
            Change(name, token, expected=token, ttl=LEASE) for token, name in self._held.items()
        ]
        if changes:
            await self._change(changes)

    async def _listen(
        self, name: str, notices: Subscribed, look: Callable[[], Awaitable[bool]]
    ) -> bytes | None:
        pause = _FIRST_LOOK
        # What was done before the subscription was in force is seen by the first try.
        while (token := await self.take(name)) is None and not await look():
            with move_on_after(pause * (0.5 + rng().random())):
                await anext(notices, None)
            pause = min(2 * pause, _LAST_LOOK)
        return token

    async def _change(self, changes: list[Change]) -> list[bool] | None:
        return await self._gate.call(lambda: self._backend.kv.change_many(changes))
