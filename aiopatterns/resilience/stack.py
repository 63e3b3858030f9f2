"""Stacks: several policies as one, outermost first.

::

    Stack(Timeout(10), Retry(on=OSError), TokenBucket(Rate(5)), Timeout(2))

    call --> [ Timeout 10 [ Retry [ TokenBucket [ Timeout 2 [ fn ] ] ] ] ]

The order is the user's, and it means something: a timeout outside the retry bounds the whole, one
inside bounds each attempt. :meth:`Stack.standard` gives the order that is right most often, and a
stack looks at itself when it is built: see :attr:`Stack.lints`.

A stack is a policy and so is compiled, when it decorates a function, into closures that call
each other. Nested stacks are flattened, and a timeout that can never fire because one around it
is as short takes no part, so two neighbours share one scope. One inside a single flight stays: it
bounds the flight, which may outlast the caller who began it.
"""

from __future__ import annotations

import math
import warnings
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, final

from aiopatterns.core.validate import instance
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator

__all__ = ["Stack", "StackWarning"]

P = ParamSpec("P")
T = TypeVar("T")

_COUNTS_RETRIED = "it counts a call only after all its retries; put the {} inside the retry"
_NEVER_SEES = "it never sees a failure that the fallback replaces; put the fallback outside"
_COUNTS_ONCE = "it counts a call once, however many are made of it; put the {} inside"

# Pairs of kinds, the outer first, that are hardly ever meant in this order, and why.
# The braces stand for the outer.
_WRONG_ORDER = (
    ("breaker", "retry", _COUNTS_RETRIED),
    ("throttle", "retry", _COUNTS_RETRIED),
    ("bulkhead", "retry", "a retry that waits keeps its permit; put the {} inside the retry"),
    ("retry", "retry", "the attempts of two retries multiply; keep one"),
    ("hedge", "hedge", "the calls of two hedges multiply; keep one"),
    (
        "hedge",
        "retry",
        "every hedge is retried, and a retry that waits is hedged; put the {} inside",
    ),
    ("retry", "fallback", _NEVER_SEES),
    ("hedge", "fallback", _NEVER_SEES),
    ("breaker", "fallback", _NEVER_SEES),
)

# The same, but with a purpose now and then: no warning, a line of advice.
_DOUBTFUL_ORDER = (
    ("timeout", "fallback", "nothing is answered when that time is over; put the fallback outside"),
    ("ratelimit", "retry", _COUNTS_ONCE),
    ("ratelimit", "hedge", _COUNTS_ONCE),
    ("bulkhead", "hedge", _COUNTS_ONCE),
    ("chaos", "retry", "what it injects is not retried; put it innermost"),
    ("chaos", "breaker", "what it injects is not counted; put it innermost"),
    ("chaos", "timeout", "the time that it takes has no bound; put it innermost"),
)

# What hangs inside of these, and has no timeout around it there, and what comes of it.
_NEEDS_TIMEOUT = (
    ("retry", "an attempt that hangs is never tried again"),
    ("breaker", "a call that hangs is never counted"),
)


class StackWarning(UserWarning):
    """The policies of a stack are in an order that is hardly ever meant."""


@final
class Stack(Policy):
    """Several policies as one, outermost first.

    Args:
        policies: At least one; a stack among them counts as its policies.

    Warns:
        StackWarning: The order is hardly ever meant; the text says why.

    Example::

        billing = Stack(Timeout(10), Retry(on=OSError), Timeout(2))


        @billing
        async def charge(amount: int) -> str: ...


        print(billing.explain())
    """

    __slots__ = ("_active", "_policies")

    kind = "stack"

    def __init__(self, *policies: Policy) -> None:
        if not policies:
            msg = "a Stack needs at least one policy"
            raise ValueError(msg)
        self._policies = tuple(_flat(policies))
        self._active = tuple(_without_idle(self._policies))
        for text in _ordered(self._policies, _WRONG_ORDER):
            warnings.warn(text, StackWarning, stacklevel=2)

    @classmethod
    def standard(
        cls,
        *,
        fallback: Policy | None = None,
        total: float | None = None,
        retry: Policy | None = None,
        breaker: Policy | None = None,
        rate: Policy | None = None,
        bulkhead: Policy | None = None,
        attempt: float | None = None,
    ) -> Stack:
        """Make a stack in the order that is right most often; what is None is left out.

        Args:
            fallback: What to answer when everything else failed.
            total: Seconds for the whole call.
            retry: When to try again.
            breaker: When not to try at all.
            rate: How many, per how long; each attempt counts.
            bulkhead: How many at once; a retry that waits holds no permit.
            attempt: Seconds for each attempt.

        Raises:
            TypeError: A policy of another kind.
            ValueError: Nothing was given.
        """
        kinds = {"retry": retry, "breaker": breaker, "ratelimit": rate, "bulkhead": bulkhead}
        for kind, policy in {"fallback": fallback, **kinds}.items():
            if policy is not None and getattr(policy, "kind", None) != kind:
                msg = f"{policy!r} is not a policy of the kind {kind!r}"
                raise TypeError(msg)
        first = None if total is None else Timeout(total)
        last = None if attempt is None else Timeout(attempt)
        given = (fallback, first, *kinds.values(), last)
        return cls(*(policy for policy in given if policy is not None))

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies, outermost first."""
        return self._policies

    @property
    def lints(self) -> tuple[str, ...]:
        """What looks wrong with this stack, and what to do; also what is no warning when built."""
        return (*_ordered(self._policies, _WRONG_ORDER), *_advice(self._policies))

    def __repr__(self) -> str:
        return f"Stack({', '.join(map(repr, self._policies))})"

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return the closures of all policies around ``fn``."""
        *outer, innermost = self._active
        wrapped = innermost.wrap(fn)
        for policy in reversed(outer):
            wrapped = policy.wrap(wrapped)
        return wrapped

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return the stream functions of all policies around ``fn``."""
        *outer, innermost = self._active
        wrapped = innermost.wrap_stream(fn)
        for policy in reversed(outer):
            wrapped = policy.wrap_stream(wrapped)
        return wrapped

    def calls(self) -> float:
        """Return how often one call may run the function: the product over all policies."""
        return math.prod(policy.calls() for policy in self._policies)

    def bound(self, inner: float) -> float:
        """Return the most seconds a call may take if the function takes ``inner`` at most."""
        for policy in reversed(self._policies):
            inner = policy.bound(inner)
        return inner

    def explain(self) -> str:
        """Say what this stack does to a call: the order, the worst case, and what looks wrong.

        Returns:
            A few lines of text.

        Example::

            1. Timeout(10)
            2.   Retry(attempts=3, backoff=Constant(seconds=1, jitter='none'))
            3.     Timeout(2)
            worst case: 3 calls of the function, 8 s
        """
        lines = [
            f"{number}. {'  ' * (number - 1)}{policy!r}"
            for number, policy in enumerate(self._policies, 1)
        ]
        calls, seconds = self.calls(), self.bound(math.inf)
        most = "no bound on the calls" if math.isinf(calls) else f"{calls:g} calls"
        time = "no bound on the time" if math.isinf(seconds) else f"{seconds:g} s"
        lines.append(f"worst case: {most} of the function, {time}")
        return "\n".join([*lines, *(f"lint: {text}" for text in self.lints)])


def _flat(policies: tuple[Policy, ...]) -> Iterator[Policy]:
    for policy in policies:
        if isinstance(policy, Stack):
            yield from policy.policies
        else:
            yield instance("policies", policy, Policy, "policies of this library")


def _without_idle(policies: tuple[Policy, ...]) -> Iterator[Policy]:
    """Leave out each timeout that can never be the one that fires."""
    kept = [each for index, each in enumerate(policies) if not _covered(each, policies[:index])]
    for policy, neighbour in zip_longest(kept, kept[1:]):
        if not _outlived(policy, neighbour):
            yield policy


def _covered(timeout: Policy, outer: tuple[Policy, ...]) -> bool:
    """Whether a timeout around ``timeout`` is over no later; of two that are, the outer wins.

    One outside a single flight bounds how long a caller waits, not the flight that others join.
    """
    flights = [index for index, each in enumerate(outer) if each.kind == "singleflight"]
    return isinstance(timeout, Timeout) and any(
        isinstance(each, Timeout)
        and each.stream == timeout.stream
        and each.seconds <= timeout.seconds
        for each in outer[flights[-1] if flights else 0 :]
    )


def _outlived(outer: Policy, inner: Policy | None) -> bool:
    """Whether ``outer`` and ``inner``, right inside it, are timeouts and ``inner`` is over first."""
    return (
        isinstance(outer, Timeout)
        and isinstance(inner, Timeout)
        and outer.stream == inner.stream
        and inner.seconds < outer.seconds
    )


def _ordered(
    policies: tuple[Policy, ...], pairs: tuple[tuple[str, str, str], ...]
) -> Iterator[str]:
    """Say of each of ``pairs`` that stands in this order why it should not."""
    kinds = [policy.kind for policy in policies]
    for outer, inner, why in pairs:
        if outer in kinds and inner in kinds[kinds.index(outer) + 1 :]:
            yield f"{policies[kinds.index(outer)]!r} is outside a {inner}: {why.format(outer)}"


def _advice(policies: tuple[Policy, ...]) -> Iterator[str]:
    """Say what is in doubt, missing, or of no use."""
    yield from _ordered(policies, _DOUBTFUL_ORDER)
    kinds = [policy.kind for policy in policies]
    for kind, result in _NEEDS_TIMEOUT:
        if kind in kinds and "timeout" not in kinds[kinds.index(kind) :]:
            yield f"no timeout inside the {kind}: {result}"
    for index, policy in enumerate(policies):
        if _covered(policy, policies[:index]):
            yield f"{policy!r} can never fire: a timeout around it is over no later"
