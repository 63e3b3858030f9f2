"""How often, in memory: the arithmetic of ``gcra.py`` on levels that expire when at rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, final

from aiopatterns.backends.gcra import Spacing
from aiopatterns.backends.names import check_name

if TYPE_CHECKING:
    from aiopatterns.backends.memory.expiring import Expiring
    from aiopatterns.backends.memory.home import MemoryHome
    from aiopatterns.core.rate import Grant, Rate

__all__ = ["Level", "MemoryLimiter"]


class Level(NamedTuple):
    """What a key owed at an instant, in microseconds."""

    owed: float
    at: int


@final
class MemoryLimiter:
    """The protocol ``Limiter`` in memory: a light handle on one name.

    Args:
        home: The backend it belongs to.
        levels: The levels of all limiters of the backend, by name and key.
        name: The name.
    """

    __slots__ = ("_home", "_levels", "_name")

    def __init__(
        self, home: MemoryHome, levels: Expiring[tuple[str, str], Level], name: str
    ) -> None:
        self._home = home
        self._levels = levels
        self._name = name

    async def acquire(
        self, key: str, rate: Rate, *, cost: float = 1.0, burst: float | None = None
    ) -> Grant:
        """Take ``cost`` now if it is there; never waits."""
        check_name("key", key)
        spacing = Spacing.of(rate, burst, cost)
        self._home.require_open()
        now = round(self._home.now() * 1e6)
        stored = self._levels.get((self._name, key))
        owed = 0.0 if stored is None else spacing.drained(stored.owed, now - stored.at)
        if cost > spacing.burst or spacing.wait(owed, cost) > 0:
            return spacing.grant(owed, cost, allowed=False)
        if cost > 0:
            owed += cost
            self._levels.put((self._name, key), Level(owed, now), owed * spacing.interval / 1e6)
        return spacing.grant(owed, cost, allowed=True)
