"""How long an open circuit stays open before it sends a probe.

A number is the length of every break. A backoff makes it grow with each probe that fails, up to a
cap, and its jitter keeps a fleet of processes from probing in step::

    CircuitBreaker("billing", open_for=30.0)
    CircuitBreaker("billing", open_for=Exponential(30, factor=2, cap=600, jitter=Proportional(0.1)))
    CircuitBreaker("billing", open_for=lambda info: 5.0 if info.ratio < 0.8 else 60.0)

If the error that opened the circuit has a number ``retry_after``, the other side has said when to
come back: the break is at least that long, up to the 60 s that ``Hint`` believes.

Guarantee: nothing a user's function does can keep a circuit from opening. If it raises, or gives
what is no positive number, that is logged and the break lasts :data:`BREAK` seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Final, TypeAlias, cast, final

from aiopatterns.core.clock import rng
from aiopatterns.core.validate import positive
from aiopatterns.resilience.backoff import Backoff
from aiopatterns.resilience.retry import Hint

__all__ = ["BREAK", "BreakInfo", "OpenFor", "break_length", "check_open_for", "told"]

#: Seconds of a break if nothing else is said.
BREAK: Final = 30.0
_HINT: Final = Hint()
# The text of an error that goes into the message of every refused call.
_MAX_CAUSE: Final = 200


@final
@dataclass(frozen=True, slots=True)
class BreakInfo:
    """Why a circuit opens, for the function that says for how long.

    Args:
        openings: How often it has opened since it was last closed, this time not counted: 0 for
            the first time.
        failures: Failed calls in the window, or among the probes.
        ratio: Their share; None without calls.
        calls: All of them.
        slow: Slow ones.
        slow_ratio: Their share; None without calls.
        error: The error of the call that opened it, if there is one.
    """

    openings: int
    failures: int
    ratio: float | None
    calls: int
    slow: int
    slow_ratio: float | None
    error: Exception | None


OpenFor: TypeAlias = float | Backoff | Callable[[BreakInfo], float]


def check_open_for(value: OpenFor) -> OpenFor:
    """Return ``value`` if it says how long a break is."""
    if callable(getattr(value, "delay", None)):
        return value
    if callable(value):
        if iscoroutinefunction(value):
            msg = f"open_for must be a plain function, not the async function {value!r}"
            raise TypeError(msg)
        return value
    return positive("open_for", cast("float", value))


def break_length(open_for: OpenFor, info: BreakInfo) -> float:
    """Return the length of a break in seconds, always a positive number; see the module's text."""
    try:
        seconds = _asked(open_for, info)
    except Exception:
        logging.getLogger("aiopatterns").exception(
            "open_for failed; the circuit is open for %g s", BREAK
        )
        seconds = BREAK
    hint = None if info.error is None else _HINT.read(info.error)
    return seconds if hint is None else max(seconds, min(hint, _HINT.cap))


def _asked(open_for: OpenFor, info: BreakInfo) -> float:
    if isinstance(open_for, (int, float)):
        return open_for
    if callable(open_for):
        return positive("open_for(info)", open_for(info))
    return positive("open_for", open_for.delay(info.openings + 1, rng=rng()))


def told(error: Exception) -> str:
    """Return the text of the error that opened a circuit.

    Only that is kept for the length of the break, not what the traceback holds on to.
    """
    try:
        text = repr(error)
    except Exception:
        text = type(error).__name__
    return text if len(text) <= _MAX_CAUSE else f"{text[:_MAX_CAUSE]}..."
