"""Ask several sources at once, and go on with what came: all, the first few, or what is in time.

::

    calls   a ---ok-------.                       values   {"a": ..., "c": ...}
            b ---error----+--> need=2 reached --> errors   {"b": ValueError}
            c ---ok-------'    the rest is        missing  ("d",)
            d ~~~~~~~~~~~~~    cancelled

What ends the wait:

* ``need=None``: every call has ended, or the timeout is over. Failures are no error; ``complete``
  says whether everybody answered.
* ``need=k``: ``k`` calls have succeeded. When that has become impossible, because too many failed
  or the time is over, :class:`~aiopatterns.core.errors.QuorumError` is raised at once.

Guarantees:

* When this returns or raises, no call runs any more: the losers were cancelled and awaited.
* One key, one fate: it is in ``values``, in ``errors`` or in ``missing``, each in the order of the
  calls.
* A failure never leaves as itself; it is in ``errors``, or in the ``errors`` of the QuorumError.
  A call that raises a cancellation that nobody has asked for has failed, too
  (:class:`~aiopatterns.core.errors.JobCancelledError`).

Not guaranteed: a call that refuses to be cancelled keeps the caller as long as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast, final, overload

from anyio import create_task_group, current_time

from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import QuorumError
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.validate import async_function, count, optional_positive, plain_function
from aiopatterns.flow.calls import own_cancellation, own_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

__all__ = ["Call", "Gathered", "scatter_gather"]

K = TypeVar("K")
T = TypeVar("T")
M = TypeVar("M")

Call: TypeAlias = "Callable[[], Awaitable[T]]"


@dataclass(frozen=True, slots=True)
class Gathered(Generic[K, T, M]):
    """What came back from :func:`scatter_gather`.

    Args:
        values: Results of the calls that succeeded, by their key (or position, from 0).
        errors: Errors of the calls that failed.
        missing: Keys of the calls that were cancelled, because enough had answered or because the
            time was over.
        elapsed: Seconds from the start to the end.
        merged: What ``merge(values)`` returned; None without ``merge``.
    """

    values: Mapping[K, T]
    errors: Mapping[K, Exception]
    missing: tuple[K, ...]
    elapsed: float
    merged: M

    @property
    def complete(self) -> bool:
        """Whether every call succeeded."""
        return not self.errors and not self.missing


@overload
async def scatter_gather(
    calls: Mapping[K, Call[T]],
    *,
    need: int | None = None,
    timeout: float | None = None,
    merge: None = None,
) -> Gathered[K, T, None]: ...
@overload
async def scatter_gather(
    calls: Mapping[K, Call[T]],
    *,
    need: int | None = None,
    timeout: float | None = None,
    merge: Callable[[Mapping[K, T]], M],
) -> Gathered[K, T, M]: ...
@overload
async def scatter_gather(
    calls: Sequence[Call[T]],
    *,
    need: int | None = None,
    timeout: float | None = None,
    merge: None = None,
) -> Gathered[int, T, None]: ...
@overload
async def scatter_gather(
    calls: Sequence[Call[T]],
    *,
    need: int | None = None,
    timeout: float | None = None,
    merge: Callable[[Mapping[int, T]], M],
) -> Gathered[int, T, M]: ...
async def scatter_gather(
    calls: Mapping[K, Call[T]] | Sequence[Call[T]],
    *,
    need: int | None = None,
    timeout: float | None = None,
    merge: Callable[[Mapping[K, T]], M] | None = None,
) -> Gathered[K, T, M]:
    """Run all calls at once and gather their results.

    Args:
        calls: Asynchronous functions without arguments, in a mapping or a sequence. From a
            sequence the keys of the result are the positions, from 0.
        need: So many successes are enough and required (1 to the number of calls); None waits for
            all and requires nothing.
        timeout: Seconds for the whole; None is no limit.
        merge: Synchronous function of the ``values``; what it returns becomes ``merged``.

    Returns:
        Values, errors and missing keys, see :class:`Gathered`.

    Raises:
        QuorumError: ``need`` successes are out of reach; ``errors`` has the failures by key.
        Exception: What ``merge`` raised.
        TypeError: A call is no function; the text names its key.
        ValueError: ``need`` is more than there are calls.

    Cancellation: all calls are cancelled and awaited; nothing is left behind.

    Complexity: one task for each call, about 17 us; memory O(calls).

    Example::

        page = await scatter_gather(
            {"user": load_user, "cart": load_cart, "ads": load_ads}, timeout=0.3
        )
        render(page.values.get("user"), page.values.get("cart"), page.values.get("ads"))
    """
    keyed = _keyed(calls)
    if need is not None and count("need", need) > len(keyed):
        raise ValueError(f"need must be at most the number of calls ({len(keyed)}), not {need!r}")
    optional_positive("timeout", timeout)
    if merge is not None:
        plain_function("merge", merge)
    began = monotonic()
    scatter = _Scatter(keyed, need)
    await scatter.run(timeout)
    values, errors, missing = scatter.fates()
    if need is not None and len(values) < need:
        raise _quorum_error(need, len(values), errors, missing)
    merged = cast("M", None) if merge is None else merge(values)
    return Gathered(values, errors, missing, monotonic() - began, merged)


@final
class _Scatter(Generic[K, T]):
    """The calls under way and the count of their ends."""

    __slots__ = ("_calls", "_errors", "_group", "_left", "_need", "_over", "_values")

    def __init__(self, calls: Mapping[K, Call[T]], need: int | None) -> None:
        self._calls = calls
        self._need = need
        self._left = len(calls)
        self._over = False
        self._values: dict[K, T] = {}
        self._errors: dict[K, Exception] = {}

    async def run(self, timeout: float | None) -> None:
        """Run the calls until the outcome is decided; nothing runs afterwards."""
        try:
            async with create_task_group() as group:
                if timeout is not None:
                    group.cancel_scope.deadline = current_time() + timeout
                for key, call in self._calls.items():
                    group.start_soon(self._ask, group, key, call)
        except BaseExceptionGroup as errors:
            raise_bare(errors)

    async def _ask(self, group: TaskGroup, key: K, call: Call[T]) -> None:
        try:
            answer = call()
            if not isawaitable(answer):
                raise TypeError(f"calls[{key!r}] must be an async function; it gave {answer!r}")
            value = await answer
        except Exception as error:
            self._errors[key] = error
        except BaseException as error:
            if not own_cancellation(error):
                raise
            self._errors[key] = own_error(f"calls[{key!r}]", error)
        else:
            if not self._over:
                self._values[key] = value
        finally:
            self._left -= 1
            self._decide(group)

    def _decide(self, group: TaskGroup) -> None:
        """End the wait when ``need`` is reached or out of reach."""
        if self._need is None or self._over:
            return
        lacking = self._need - len(self._values)
        if lacking <= 0 or lacking > self._left:
            self._over = True
            group.cancel_scope.cancel()

    def fates(self) -> tuple[dict[K, T], dict[K, Exception], tuple[K, ...]]:
        """Return values, errors and missing keys in the order of the calls."""
        values = {key: self._values[key] for key in self._calls if key in self._values}
        errors = {key: self._errors[key] for key in self._calls if key in self._errors}
        missing = tuple(key for key in self._calls if key not in values and key not in errors)
        return values, errors, missing


def _keyed(calls: Mapping[K, Call[T]] | Sequence[Call[T]]) -> Mapping[K, Call[T]]:
    """Return the calls by key, every one of them a function."""
    if isinstance(calls, Mapping):
        keyed = dict(calls)
    elif isinstance(calls, Sequence) and not isinstance(calls, (str, bytes)):
        keyed = cast("dict[K, Call[T]]", dict(enumerate(calls)))
    else:
        raise TypeError(f"calls must be a mapping or a sequence of async functions, not {calls!r}")
    for key, call in keyed.items():
        if not callable(call):
            raise TypeError(
                f"calls[{key!r}] must be an async function without arguments, not {call!r}; "
                "pass the function itself, or a lambda that calls it"
            )
        async_function(f"calls[{key!r}]", call)
    return keyed


def _quorum_error(
    need: int, got: int, errors: Mapping[K, Exception], missing: Sequence[K]
) -> QuorumError:
    parts = [f"{got} of {need} needed calls succeeded"]
    parts += [f"{key!r} failed: {error!r}" for key, error in errors.items()]
    parts += [f"{key!r} did not answer" for key in missing]
    failure = QuorumError(
        "; ".join(parts), got=got, need=need, errors=cast("Mapping[object, Exception]", errors)
    )
    failure.__cause__ = next(iter(errors.values()), None)
    return failure
