"""One balanced call: an ``async with`` block that reports by itself how it went.

================================================  ==========================================
the block                                         counts as
================================================  ==========================================
ends, or is left by ``return`` or ``break``       success, with its latency
raises an ``Exception``                           failure
raises a ``RejectedError``                        nothing: a policy refused the call, so the
                                                  endpoint was not asked
is cancelled                                      nothing; a timeout *inside* the block is a
                                                  ``TimeoutError``, which is a failure
================================================  ==========================================

A judge of the user may decide otherwise about an ``Exception``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.core.clock import monotonic
from aiopatterns.resilience.judge import outcome_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from aiopatterns.cluster.endpoint import Endpoint
    from aiopatterns.cluster.pool import Pool
    from aiopatterns.core.types import Key
    from aiopatterns.resilience.judge import Judge, Outcome

__all__ = ["Pick"]


@final
class Pick:
    """A call of one endpoint; made by ``balancer.pick(...)``, used once.

    Args:
        pool: Who picks.
        judge: Says what an error means.
        key: What the call is about.
        exclude: Ids or instances that are not wanted; read when the block is entered.
    """

    __slots__ = ("_endpoint", "_exclude", "_judge", "_key", "_pool", "generation")

    def __init__(
        self,
        pool: Pool,
        judge: Judge | None,
        key: Key | None,
        exclude: Collection[str | ServiceInstance],
    ) -> None:
        self._pool = pool
        self._judge = judge
        self._key = key
        self._exclude = exclude
        self._endpoint: Endpoint | None = None
        #: The generation of the endpoint's standing in which the call began.
        self.generation: int = 0

    async def __aenter__(self) -> ServiceInstance:
        """Pick an endpoint; the call begins. Never waits.

        Raises:
            NoEndpointError: There is none, or all are excluded.
            RuntimeError: This block has been entered before.
        """
        if self._endpoint is not None:
            msg = "a pick is used once; call balancer.pick() for each call"
            raise RuntimeError(msg)
        exclude = _ids(self._exclude) if self._exclude else ()
        endpoint = self._pool.take(self, self._key, exclude, monotonic())
        self._endpoint = endpoint
        self.generation = endpoint.standing.generation
        return endpoint.instance

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Report how it went; an error goes on."""
        endpoint = self._endpoint
        assert endpoint is not None
        if exc is None:
            self._pool.end(self, endpoint, "success")
        elif isinstance(exc, Exception):
            self._judged(endpoint, exc)
        else:
            self._pool.end(self, endpoint, "ignore")

    def _judged(self, endpoint: Endpoint, error: Exception) -> None:
        outcome: Outcome = "ignore"  # also if the judge raises
        try:
            outcome = outcome_of(self._judge, error)
        finally:
            self._pool.end(self, endpoint, outcome, error)


def _ids(exclude: Collection[str | ServiceInstance]) -> set[str]:
    if isinstance(exclude, (str, ServiceInstance)):
        msg = f"exclude must hold instances or their ids, not be {exclude!r}"
        raise TypeError(msg)
    return {each.id if isinstance(each, ServiceInstance) else each for each in exclude}
