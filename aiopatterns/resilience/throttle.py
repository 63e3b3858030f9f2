"""Throttling at the client: stop asking a service that does not answer.

A service that refuses requests because it is overloaded still pays for each refusal. So the
client counts what it asked for and what was accepted, and keeps some of its calls to itself when
the two drift apart::

    reject ratio = (calls - factor * accepted) / (calls + 1)        0 at least, max_ratio at most

    accepted   100 %   60 %   50 %   40 %   25 %   0 %
    rejected     0 %    0 %    0 %   20 %   50 %   90 %     factor=2, max_ratio=0.9, many calls

Calls that the throttle itself refused count as calls, so it holds while the trouble lasts; the
share that still goes through finds out when it is over. No state to open or close, no threshold to
trip: the load that is let through follows what the service accepts.

Guarantees: with all calls accepted nothing is ever refused, and neither is the first call after
``window`` quiet seconds. A cancelled call counts as nothing. Not guaranteed: which calls are
refused; that is chance.

Source: "Site Reliability Engineering" (2016), chapter 21, "Client-Side Throttling"; the cap is
that of failsafe-go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar, final

from aiopatterns.core.clock import rng
from aiopatterns.core.errors import OverloadedError, RejectedError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import at_least, in_range, positive
from aiopatterns.core.windows import TimeWindow
from aiopatterns.resilience.matching import Matcher
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from aiopatterns.resilience.matching import On

__all__ = ["Throttle", "ThrottleRejected"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ThrottleRejected(Event):
    """A throttle refused a call.

    Args:
        ratio: The share of calls that it refuses now.
    """

    name: ClassVar[str] = "aiopatterns.throttle.rejected"
    level: ClassVar[str] = "warning"

    ratio: float


@final
class Throttle(Policy):
    """Refuse a share of the calls while the other side fails most of them.

    Args:
        factor: How many calls are made for each that is accepted, at least 1: 2 lets half of them
            fail before any is refused, 1.1 reacts soon.
        window: For how many seconds a call counts, above 0.
        max_ratio: The largest share of calls that is refused, 0 to 1; what is left over finds out
            that the other side is back.
        on: Which errors mean that the call was not accepted: an exception type, a tuple of them,
            or a predicate of the error. By default every ``Exception``. An error that is none of
            these is an answer. A refusal by a policy inside is neither, unless ``on`` names it.

    Of a stream the throttle counts whether it opened, that is gave its first item.

    Example::

        @Throttle(on=ConnectionError)
        async def fetch(url: str) -> bytes: ...
    """

    __slots__ = ("_calls", "_factor", "_failures", "_max_ratio", "_window")

    kind = "throttle"

    def __init__(
        self,
        *,
        factor: float = 2.0,
        window: float = 120.0,
        max_ratio: float = 0.9,
        on: On = Exception,
    ) -> None:
        self._factor = positive("factor", at_least("factor", factor, 1.0))
        self._window = positive("window", window)
        self._calls = TimeWindow(window)
        self._max_ratio = in_range("max_ratio", max_ratio, 0.0, 1.0)
        self._failures = Matcher(on, refusals=False)

    def __repr__(self) -> str:
        return f"Throttle(factor={self._factor:g})"

    @property
    def reject_ratio(self) -> float:
        """The share of calls that is refused now, 0 to 1."""
        now = self._calls.totals()
        ratio = (now.calls - self._factor * now.successes) / (now.calls + 1)
        return max(0.0, min(ratio, self._max_ratio))

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that calls ``fn``, or refuses."""
        calls = self._calls

        async def throttled(*args: P.args, **kwargs: P.kwargs) -> T:
            if calls.failures:
                self._refuse_some()
            try:
                result = await fn(*args, **kwargs)
            except Exception as error:
                self._failed(error)
                raise
            calls.record()
            return result

        return throttled

    def adopt(self, previous: Policy) -> bool:
        """Go on with the calls that a throttle with the same window has counted.

        Returns:
            Whether ``previous`` was one.
        """
        return isinstance(previous, Throttle) and self._share(previous)

    def _share(self, other: Throttle) -> bool:
        if other._window != self._window:
            return False
        self._calls = other._calls
        return True

    def _refuse_some(self) -> None:
        """Refuse, or not, as chance will have it."""
        ratio = self.reject_ratio
        if not ratio or rng().random() >= ratio:
            return
        self._calls.record(failed=True)
        if listening():
            emit(ThrottleRejected(ratio))
        msg = f"{self!r}: {ratio:.0%} of the calls are refused because most of them fail"
        raise OverloadedError(msg, name="Throttle")

    def _failed(self, error: Exception) -> None:
        """Count a call that raised."""
        failed = self._failures.matches(error)
        if failed or not isinstance(error, RejectedError):
            self._calls.record(failed=failed)
