"""A rate limit that all processes share: one key in the backend, asked by one script a call.

A quota belongs to whoever set it, not to one of your processes. So the count stands where all of
them see it, and time is that of the server there::

    process A --.                        .-- allowed: start
    process B --+--> backend: 100 per 1 s |
    process C --'     (GCRA, one step)    '-- refused, with the seconds until it is worth asking

    backend out of reach --> "local": each process keeps the rate by itself
                             "allow": everything starts         "deny": nothing does

Guarantees:

* Over all processes, and whatever their clocks say, no more than ``burst + amount`` start in any
  window of ``per`` seconds. A refused call takes nothing.
* Within one process, first come first served for each key: nobody passes a waiting task.
* A wait that would be too long, as far as that is known, is refused at once; none is longer than
  ``max_wait`` and the deadline bound here.
* An outage is no error (unless ``on_outage="deny"``), and costs next to nothing: one call at a
  time asks whether the backend is back, after 0.1 s at first and 5 s at most, and waits for the
  answer 0.25 s at most. All others are decided at once.

Not guaranteed: an order between processes; a refund, for a call that is cancelled while the
answer is on its way may have taken its token; the rate of all processes together while the
backend is away, when ``"local"`` lets each of them have the whole rate.

Source: GCRA as in ITU-T I.371; failing open onto a local limiter is what Envoy and Kong do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    NoReturn,
    ParamSpec,
    TypeAlias,
    TypeVar,
    final,
)

from anyio import Lock, move_on_after

from aiopatterns.backends.opening import resolve
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import remaining
from aiopatterns.core.errors import BackendError, RateLimitedError
from aiopatterns.core.rate import Grant, Rate
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import (
    at_least,
    choice,
    instance,
    non_negative,
    optional_function,
    positive,
    text,
)
from aiopatterns.resilience.backoff import Exponential, Proportional
from aiopatterns.resilience.breaker import CircuitBreaker, CircuitState
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.ratelimit import RateLimitRejected, TokenBucket
from aiopatterns.resilience.trip import Consecutive, Trip

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from aiopatterns.backends.protocols import Backend

__all__ = ["OnOutage", "RateLimitOutage", "RateLimitRecovered", "SharedRateLimit"]

P = ParamSpec("P")
T = TypeVar("T")

OnOutage: TypeAlias = Literal["local", "allow", "deny"]

_CHOICES: Final = ("local", "allow", "deny")
#: Seconds that a call waits for the backend before it counts as away.
PATIENCE: Final = 0.25
#: Seconds until the backend is asked again: short at first, for most outages are.
_PROBES: Final = Exponential(initial=0.1, factor=2, cap=5.0, jitter=Proportional(0.1))
# What is asked for when no key is given; keys of users carry a mark that this one has not.
_UNKEYED: Final = "*"


@dataclass(frozen=True, slots=True)
class RateLimitOutage(Event):
    """The backend of a shared limit is out of reach.

    Args:
        limiter: The limiter, as in its ``repr``.
        instead: What decides now: ``"local"``, ``"allow"`` or ``"deny"``.
        error: What was wrong.
    """

    name: ClassVar[str] = "aiopatterns.ratelimit.outage"
    level: ClassVar[str] = "warning"

    limiter: str
    instead: OnOutage
    error: str


@dataclass(frozen=True, slots=True)
class RateLimitRecovered(Event):
    """The backend of a shared limit answers again.

    Args:
        limiter: The limiter, as in its ``repr``.
    """

    name: ClassVar[str] = "aiopatterns.ratelimit.recovered"

    limiter: str


@final
class _Line:
    """Those of this process who wait for one key; the head asks for all of them."""

    __slots__ = ("due", "owed", "turn", "waiting")

    def __init__(self, due: float) -> None:
        self.turn = Lock(fast_acquire=True)
        self.waiting = 0
        self.owed = 0.0  # what they ask for, together
        self.due = due  # when the head will ask again


@final
class SharedRateLimit(Policy):
    """Start no more than so many, over all processes that use the same backend and name.

    Args:
        rate: How many, per how long.
        backend: Where the count stands: an open backend, or a URL; one made of a URL is opened by
            ``async with limit.backend:``.
        name: Of the limit; the same in all processes.
        key: As a policy: a function of the call's arguments that says whose tokens to take, as
            text; by default all calls share them.
        burst: How many may be saved up, at least 1; by default the rate's amount.
        max_wait: The longest wait in seconds; None waits for ever, 0 refuses at once.
        on_outage: What decides while the backend is out of reach: ``"local"``, a limiter of this
            process with the same rate; ``"allow"``, nobody; ``"deny"``, refuse every call.

    Example::

        quota = SharedRateLimit(Rate(100), backend, name="github")


        @quota
        async def fetch(url: str) -> bytes: ...
    """

    __slots__ = (
        "_breaker",
        "_burst",
        "_key",
        "_limiter",
        "_lines",
        "_local",
        "_max_wait",
        "_name",
        "_on_outage",
        "_out",
        "_rate",
        "backend",
    )

    kind = "ratelimit"

    def __init__(
        self,
        rate: Rate,
        backend: Backend | str,
        *,
        name: str,
        key: Callable[..., str] | None = None,
        burst: float | None = None,
        max_wait: float | None = None,
        on_outage: OnOutage = "local",
    ) -> None:
        self._rate = instance("rate", rate, Rate, "a Rate, as in Rate(100, per=1.0)")
        self._name = text("name", name)
        self._key = optional_function("key", key)
        self._burst = max(rate.amount, 1.0) if burst is None else _check_burst(burst)
        self._max_wait = math.inf if max_wait is None else _check_wait(max_wait)
        self._on_outage: OnOutage = choice("on_outage", on_outage, _CHOICES)
        self.backend: Backend = resolve(backend)
        self._limiter = self.backend.limiter(name)
        self._local = TokenBucket(rate, burst=self._burst)
        self._breaker = CircuitBreaker(
            f"ratelimit {name}", trip=Trip(Consecutive(1)), open_for=_PROBES
        )
        self._lines: dict[str, _Line] = {}
        self._out = False

    def __repr__(self) -> str:
        return f"SharedRateLimit({self._name!r}, {self._rate})"

    @property
    def rate(self) -> Rate:
        """The rate, as given."""
        return self._rate

    @property
    def on_outage(self) -> OnOutage:
        """What decides while the backend is out of reach."""
        return self._on_outage

    @property
    def in_outage(self) -> bool:
        """Whether the backend did not answer when it was last asked."""
        return self._out

    async def acquire(
        self, cost: float = 1.0, *, key: str | None = None, max_wait: float | None = None
    ) -> Grant:
        """Take ``cost``, waiting for it if need be.

        Args:
            cost: How much to take, above 0 and not more than the burst.
            key: Whose; None is a key of its own.
            max_wait: Refuse what would wait longer than so many seconds; 0 never waits, None is
                what the constructor says.

        Returns:
            The answer, always a yes.

        Raises:
            RateLimitedError: The wait would be too long, or end after the deadline bound here, or
                the backend is away and ``on_outage`` is ``"deny"``.
            ValueError: ``cost`` can never be there, or ``key`` is no name.
            ClosedError: The backend is not open.

        Cancellation: leaves the line. A token whose grant was on its way may be lost.

        Complexity: O(1), 1 round trip if the cost is there; one more for each time the head of
            the line asks.
        """
        if cost != 1.0 and positive("cost", cost) > self._burst:
            msg = f"cost must be at most {self._burst:g} for {self!r}, not {cost!r}"
            raise ValueError(msg)
        limit = self._max_wait if max_wait is None else _check_wait(max_wait)
        shared = _UNKEYED if key is None else f"={text('key', key)}"
        due = 0.0
        if shared not in self._lines:
            grant = await self._try(shared, cost)
            if grant.allowed:
                return grant
            due = monotonic() + grant.retry_after
        return await self._queue(shared, cost, limit, due)

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that takes one token, of its key, before each call of ``fn``."""
        key = self._key

        async def limited(*args: P.args, **kwargs: P.kwargs) -> T:
            await self.acquire(key=None if key is None else key(*args, **kwargs))
            return await fn(*args, **kwargs)

        return limited

    def bound(self, inner: float) -> float:
        """Return the most seconds a call may take: the longest wait, and what is inside."""
        return self._max_wait + inner

    # -- waiting -------------------------------------------------------------------------------

    async def _queue(self, key: str, cost: float, limit: float, due: float) -> Grant:
        """Wait in the line of ``key``, or refuse what is known to take longer than ``limit``."""
        left = remaining()
        limit = limit if left is None else min(limit, left)
        line = self._lines.get(key) or _Line(due)
        ahead = max(line.due - monotonic(), 0.0) + line.owed * self._rate.per / self._rate.amount
        if ahead > limit:
            self._refuse(ahead)
        self._lines[key] = line
        line.waiting += 1
        line.owed += cost
        try:
            with move_on_after(None if limit == math.inf else limit):
                async with line.turn:
                    return await self._poll(key, cost, line, monotonic() + limit)
            self._refuse(max(line.due - monotonic(), 0.0))
        finally:
            line.waiting -= 1
            line.owed -= cost
            if not line.waiting:
                del self._lines[key]

    async def _poll(self, key: str, cost: float, line: _Line, until: float) -> Grant:
        """Ask whenever it is worth it, until the answer is yes; the line is held meanwhile."""
        while True:
            if (wait := line.due - monotonic()) > 0:
                if line.due > until:
                    self._refuse(wait)
                await sleep(wait)
            grant = await self._try(key, cost)
            if grant.allowed:
                return grant
            line.due = monotonic() + grant.retry_after

    def _refuse(self, wait: float) -> NoReturn:
        """Tell a refusal.

        Raises:
            RateLimitedError: Always.
        """
        if listening():
            emit(RateLimitRejected(repr(self), wait))
        msg = f"{self!r} is used up; try again in {wait:.3g} s"
        raise RateLimitedError(msg, name=self._name, retry_after=wait)

    # -- asking --------------------------------------------------------------------------------

    async def _try(self, key: str, cost: float) -> Grant:
        """Take ``cost`` if it is there: ask the backend, or what stands in for it."""
        if not self._breaker.retry_after:
            grant = await self._ask(key, cost)
            if grant is not None:
                return grant
        if self._on_outage == "local":
            return self._local.try_acquire(cost, key=key)
        if self._on_outage == "allow":
            return Grant(allowed=True, retry_after=0.0, remaining=int(self._burst), reset_after=0.0)
        msg = f"{self!r} cannot be counted: its backend is out of reach"
        raise RateLimitedError(msg, name=self._name, retry_after=self._breaker.retry_after)

    async def _ask(self, key: str, cost: float) -> Grant | None:
        """Ask the backend; None if it does not answer in time."""
        permit = self._breaker.try_acquire()
        try:
            with move_on_after(PATIENCE):
                grant = await self._limiter.acquire(key, self._rate, cost=cost, burst=self._burst)
                permit.record("success")
                self._recovered()
                return grant
            permit.record("failure")
            self._lost(f"no answer within {PATIENCE:g} s")
        except BackendError as error:
            permit.record("failure")
            self._lost(str(error))
        finally:
            permit.drop()
        return None

    def _lost(self, error: str) -> None:
        if not self._out:
            self._out = True
            if listening():
                emit(RateLimitOutage(repr(self), self._on_outage, error))

    def _recovered(self) -> None:
        if self._out and self._breaker.state is CircuitState.CLOSED:
            self._out = False
            if listening():
                emit(RateLimitRecovered(repr(self)))


def _check_burst(burst: float) -> float:
    return at_least("burst", positive("burst", burst), 1)


def _check_wait(max_wait: float) -> float:
    return non_negative("max_wait", max_wait, finite=False)
