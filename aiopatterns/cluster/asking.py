"""A pool that asks its registry when it is used: for clients, which have no task to watch it.

The first call asks, and all that come meanwhile share the question. From then on one call in each
second asks again, while the others go on with what is known; so an unused client costs the
registry nothing.

Guarantees:

* A registry that does not answer costs one call in each second :data:`PATIENCE` seconds, and is
  no error while what is known is good enough for it.
* When it is not (the registry's ``max_stale``), calls raise until the backend is back.
* What was found out while the registry was open is over when that is closed.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, final

from anyio import move_on_after

from aiopatterns.cluster.pick import Pick
from aiopatterns.cluster.pool import Pool
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import BackendError
from aiopatterns.resilience.singleflight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiopatterns.cluster.instance import ServiceInstance
    from aiopatterns.cluster.pool import BalancerStatistics, Rules
    from aiopatterns.cluster.registry import ServiceRegistry
    from aiopatterns.core.types import Key

__all__ = ["Asking"]

#: Seconds after which the registry is asked again, by the next call.
INTERVAL: Final = 1.0
#: Seconds that a call waits for the registry while something is known.
PATIENCE: Final = 0.25


@final
class Asking:
    """Endpoints of one service by a registry that is asked.

    Args:
        registry: Whom to ask.
        rules: By what its pool decides.
    """

    __slots__ = ("_asked", "_flights", "_known", "_opening", "_pool", "_registry", "_rules")

    def __init__(self, registry: ServiceRegistry, rules: Rules) -> None:
        self._registry = registry
        self._rules = rules
        self._pool = Pool(rules)
        self._flights = SingleFlight()
        self._opening: object = None  # of the registry, when it was asked first
        self._known = False  # whether the pool may be used
        self._asked = -inf  # when the registry was asked last

    @property
    def usable(self) -> tuple[ServiceInstance, ...]:
        """The endpoints that calls are spread over at present."""
        return tuple(each.instance for each in self._pool.usable)

    def pick(self, key: Key | None, exclude: Collection[str]) -> Pick:
        """Return one call, as an ``async with`` block that gives its endpoint."""
        return Pick(self._pool, None, key, exclude)

    def statistics(self) -> BalancerStatistics:
        """Return what is known."""
        return self._pool.statistics()

    async def refresh(self) -> None:
        """Ask the registry, if it is time to.

        Raises:
            BackendError: It does not answer, and nothing is known that is good enough.
            ClosedError: It is not open.

        Cancellation: leaves the question to those who share it.
        """
        now, opening = monotonic(), self._registry.opening
        if opening is not self._opening:  # another one, maybe with another loop and clock
            self._pool, self._known, self._opening = Pool(self._rules), False, opening
        if not self._known:
            await self._flights.run(self._rules.service, self._ask)
        elif now >= self._asked + INTERVAL:
            self._asked = now  # others go on meanwhile
            with move_on_after(PATIENCE):
                await self._flights.run(self._rules.service, self._ask)

    async def _ask(self) -> None:
        self._asked = monotonic()
        try:
            snapshot = await self._registry.instances(self._rules.service)
        except BackendError:
            self._known = False
            raise
        self._pool.update(snapshot.instances, snapshot.stale)
        self._known = True
