"""Single flight: one run for all who ask for the same thing meanwhile.

When a popular entry leaves the cache, a thousand requests miss it in the same moment and load it
a thousand times. A single flight lets the first of them load, and the others wait for its answer::

    caller A --.
    caller B --+-- same key --> [ fn() ] --> one answer for the three
    caller C --'
    caller D ----- other key -> [ fn() ]

Nothing is kept: who comes after the end begins a new flight. That is what a cache is for.

Guarantees (see ``core/flight.py``):

* A flight belongs to all who wait for it. One who is cancelled, or whose time is over, leaves
  alone; the last one out cancels the work and waits for its end.
* Every waiter gets the result, or an error of its own. The result is shared, not copied.
* The deadline of the first caller does not bind the others: inside a flight there is none. Each
  waiter is bounded by the timeouts around it.

Not guaranteed: that it is safe to share. Use it for reading, and for writing the same twice; a
function that waits for its own key waits for itself; anything about other processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, cast, final

from aiopatterns.core.flight import Flights
from aiopatterns.core.validate import plain_function
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable

__all__ = ["SingleFlight", "SingleFlightStatistics"]

P = ParamSpec("P")
T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class SingleFlightStatistics:
    """What a single flight has done.

    Args:
        flights: Runs of a function that were begun.
        shared: Calls that joined one instead of beginning their own.
        in_flight: Runs under way.
    """

    flights: int
    shared: int
    in_flight: int


@final
class SingleFlight(Policy):
    """Run a function once for all who ask for the same meanwhile.

    Args:
        key: As a policy: a function of the call's arguments that says what is asked for, by
            default the arguments themselves. Calls of different functions never share.

    It may be made at module level. In a ``Stack`` it shares the calls of a decorated function, not
    those of ``stack.call``, which builds the function anew each time. A stream has one reader and
    is refused.

    Example::

        flights = SingleFlight()
        user = await flights.run(("user", 1), lambda: load_user(1))


        @SingleFlight(key=lambda user_id, **_: user_id)
        async def load(user_id: int, *, trace: str = "") -> User: ...
    """

    __slots__ = ("_calls", "_flights", "_key", "_shared")

    kind = "singleflight"

    def __init__(self, *, key: Callable[..., Hashable] | None = None) -> None:
        self._key = key if key is None else plain_function("key", key)
        self._flights: Flights[Hashable, object] = Flights()
        self._calls = 0
        self._shared = 0

    def __repr__(self) -> str:
        return "SingleFlight()"

    async def run(self, key: Hashable, fn: Callable[[], Awaitable[T]]) -> T:
        """Join the flight of ``key``, or begin one with ``fn``.

        Args:
            key: What is asked for.
            fn: Async function of no arguments; runs only if nobody else's does.

        Returns:
            What the function of the flight returned.

        Raises:
            Exception: What the function of the flight raised.
            TypeError: ``key`` cannot be hashed.

        Cancellation: leaves the flight to the others; the last one out cancels the function and
            waits, shielded, until it has ended.

        Complexity: O(1); about 6 us for a flight and 1 us for each who waits.
        """
        shared = self._flights.get(key) is not None  # first: a key without a hash is no call
        self._calls += 1
        self._shared += shared
        return cast("T", await self._flights.run(key, fn))

    def statistics(self) -> SingleFlightStatistics:
        """Return what it has done since it was made."""
        return SingleFlightStatistics(self._calls - self._shared, self._shared, len(self._flights))

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function whose calls with an equal key share one run of ``fn``."""
        key = self._key or _arguments

        async def shared(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.run((fn, key(*args, **kwargs)), lambda: fn(*args, **kwargs))

        return shared

    def wrap_stream(self, fn: Callable[P, AsyncGenerator[T, Any]]) -> NoReturn:
        """Refuse.

        Raises:
            TypeError: A stream has one reader.
        """
        msg = f"a stream has one reader, so {fn!r} cannot be shared by a SingleFlight"
        raise TypeError(msg)


def _arguments(*args: object, **kwargs: object) -> Hashable:
    """Return the arguments of a call as a key.

    Raises:
        TypeError: They cannot be hashed.
    """
    key = (args, frozenset(kwargs.items()))
    try:
        hash(key)
    except TypeError as error:
        msg = f"{error}; give SingleFlight a key= that makes a key of the arguments"
        raise TypeError(msg) from None
    return key
