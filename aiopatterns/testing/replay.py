"""Replay what happened through a policy, in virtual time, to choose its settings.

Thresholds, limits and breaks are guesses until they meet real traffic. A log of real traffic, when
each call began, how long it took and how it ended, is enough to try them: an afternoon of calls
runs through a stack in a second, and the settings stand side by side::

    trace            at 0.00  0.12 s  success        each call begins at its time, under the policy
                     at 0.05  2.00 s  failure   -->  made afresh, and the dependency answers as it
                     at 0.07  0.11 s  success        did then

Model. The first attempt of a call takes as long, and ends, as it was recorded. A further one, of a
retry or a hedge, ends like the first recorded call that began at its time or later, so that an
outage is one for retries as well; the next attempt of the same call takes the record after that.
Callers do not wait for each other: the calls begin when they began.

Not in the model: that less load would have let the dependency recover sooner, or more load hurt
it. Compare attempts and most in flight for that.

Everything is as repeatable as any simulation: same trace, same seed, same report.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import chain
from math import ceil
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

from anyio import create_task_group

from aiopatterns.core.clock import monotonic, sleep, sleep_until
from aiopatterns.core.errors import RejectedError, TimeoutExceededError
from aiopatterns.core.telemetry import listen
from aiopatterns.core.validate import (
    choice,
    count,
    error_type,
    function,
    in_range,
    instance,
    non_negative,
    number,
)
from aiopatterns.testing.explore import run_on
from aiopatterns.testing.simloop import SimLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aiopatterns.core.telemetry import Event
    from aiopatterns.resilience.policy import Policy

__all__ = [
    "Comparison",
    "Recorded",
    "RecordedOutcome",
    "Replay",
    "ReplayedError",
    "compare",
    "replay",
]

RecordedOutcome: TypeAlias = "Literal['success', 'failure'] | type[Exception]"

# A replay makes an end by itself, so the guard against endless runs grows with the trace.
_STEPS: Final = 1_000_000
_STEPS_PER_CALL: Final = 10_000
# Circuits that flap would make the table as long as the trace.
_SHOWN: Final = 3
_NEVER: Final = "-"


class ReplayedError(Exception):
    """The failure of a call that was recorded as ``"failure"``."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One call, as it was. Subclass it if a ``key=`` of your policies needs more.

    Args:
        at: When it began, in seconds from any origin; a wall timestamp will do.
        elapsed: How many seconds it took.
        outcome: How it ended: ``"success"``, ``"failure"``, or the exception type it raised,
            which must need no arguments.
    """

    at: float
    elapsed: float
    outcome: RecordedOutcome = "success"

    def __post_init__(self) -> None:
        number("at", self.at)
        non_negative("elapsed", self.elapsed)
        if isinstance(self.outcome, type):
            error_type("outcome", self.outcome)
        else:
            choice("outcome", self.outcome, ("success", "failure"))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a policy would have done; ``str()`` is a table, beside what happens without it.

    Args:
        name: What the settings are called.
        latencies: How long each caller waited, in the order of the trace; refused calls, too.
        succeeded: Calls that returned, also by a fallback.
        failed: Calls that raised something else than the next two.
        refused: Calls that raised a ``RejectedError``.
        timed_out: Calls that raised a ``TimeoutExceededError``.
        errors: How often each error left, by the name of its type.
        attempts: Calls that the dependency got.
        peak: Most calls that the dependency had at once.
        events: How often each event of the library was told, by its name.
        opened_at: When a circuit opened, in the time of the trace.
        open_time: How many seconds circuits were open.
        without: The same calls without any policy; None if this is that.
    """

    name: str
    latencies: tuple[float, ...] = field(repr=False)
    succeeded: int
    failed: int
    refused: int
    timed_out: int
    errors: Mapping[str, int]
    attempts: int
    peak: int
    events: Mapping[str, int]
    opened_at: tuple[float, ...]
    open_time: float
    without: Replay | None = field(default=None, repr=False)

    @property
    def calls(self) -> int:
        """Calls of the trace."""
        return len(self.latencies)

    @property
    def retried(self) -> int:
        """Attempts that a retry scheduled."""
        return self.events.get("aiopatterns.retry.scheduled", 0)

    @property
    def hedged(self) -> int:
        """Attempts that a hedge began beside another."""
        return self.events.get("aiopatterns.hedge.started", 0)

    @property
    def fallbacks(self) -> int:
        """Answers that a fallback gave."""
        return self.events.get("aiopatterns.fallback.used", 0)

    def quantile(self, q: float) -> float:
        """Return the latency that a share ``q`` of the callers did not exceed, exactly.

        Args:
            q: From 0 (the least) to 1 (the greatest).
        """
        rank = ceil(in_range("q", q, 0, 1) * self.calls)
        return sorted(self.latencies)[max(rank - 1, 0)]

    def __str__(self) -> str:
        return _table([self] if self.without is None else [self.without, self])


@final
@dataclass(frozen=True, slots=True)
class Comparison:
    """Several settings and one trace; ``str()`` is a table with a column for each.

    Args:
        without: What happens without any policy.
        replays: What each would have done, by the name of the settings.
    """

    without: Replay
    replays: Mapping[str, Replay]

    def __getitem__(self, name: str) -> Replay:
        return self.replays[name]

    def __str__(self) -> str:
        return _table([self.without, *self.replays.values()])


def replay(
    trace: Iterable[Recorded], make: Callable[[], Policy], *, name: str = "with", seed: int = 0
) -> Replay:
    """Run the calls of a trace through a policy, in virtual time.

    Args:
        trace: What was recorded, in any order; at least one call.
        make: Function that makes the policy. It is called inside the simulation, so that each
            replay begins with a fresh one. The policy is applied to a function of one argument,
            the record.
        name: What to call it in the table.
        seed: Of the schedule and the dice, a whole number >= 0.

    Returns:
        What the policy would have done.

    Raises:
        TypeError: ``make`` is no function, or makes no policy.
        ValueError: No calls.
        RuntimeError: Called from async code.

    Complexity: about 0.1 ms a call, twice, since the trace also runs without the policy.

    Example::

        print(replay(trace, lambda: Stack(Retry(on=OSError), CircuitBreaker("db"), Timeout(1))))
    """
    return compare(trace, {name: make}, seed=seed)[name]


def compare(
    trace: Iterable[Recorded], settings: Mapping[str, Callable[[], Policy]], *, seed: int = 0
) -> Comparison:
    """Run the calls of a trace through several policies, one after the other.

    Args:
        trace: As in :func:`replay`.
        settings: Functions that make a policy, by the name for the table; at least one.
        seed: As in :func:`replay`, the same for all.

    Returns:
        What each would have done, and what happens without.

    Raises:
        TypeError, ValueError, RuntimeError: As in :func:`replay`.
    """
    calls = [instance("trace", each, Recorded, "records of the type Recorded") for each in trace]
    if not calls or not settings:
        msg = f"{'settings' if calls else 'trace'} must hold at least one item, not be empty"
        raise ValueError(msg)
    for make in settings.values():
        _check_make(make)
    count("seed", seed, minimum=0)
    calls.sort(key=lambda each: each.at)
    without = _run(calls, "without", None, None, seed)
    replays = {name: _run(calls, name, make, without, seed) for name, make in settings.items()}
    return Comparison(without, MappingProxyType(replays))


def _check_make(make: Callable[[], Policy]) -> None:
    if isinstance(make, _policy()):  # it can be called, too: it decorates
        msg = f"make must be a function that makes the policy, as in lambda: {make!r}"
        raise TypeError(msg)
    function("make", make)


def _policy() -> type[Policy]:
    # Late, so that the test kit, and with it every run of pytest, does without that room.
    from aiopatterns.resilience.policy import Policy

    return Policy


def _run(
    calls: Sequence[Recorded],
    name: str,
    make: Callable[[], Policy] | None,
    without: Replay | None,
    seed: int,
) -> Replay:
    async def run() -> Replay:
        session = _Session(calls)
        attempt = session.attempt
        if make is not None:
            attempt = instance("what make returns", make(), _policy(), "a policy")(attempt)
        with listen(session.hear):
            async with create_task_group() as group:
                for index, record in enumerate(calls):
                    await sleep_until(record.at - session.origin)
                    group.start_soon(session.call, index, attempt)
        return session.report(name, without)

    return run_on(SimLoop(seed, max_steps=_STEPS + _STEPS_PER_CALL * len(calls)), run)


@final
class _Call:
    """One call of the trace on its way."""

    __slots__ = ("attempts", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self.attempts = 0


_call: ContextVar[_Call] = ContextVar("aiopatterns_replayed_call")


@final
class _Session:
    """One replay: the dependency that answers, the callers, and what is noted about them."""

    def __init__(self, calls: Sequence[Recorded]) -> None:
        self._calls = calls
        self.origin = calls[0].at
        self._begins = [each.at - self.origin for each in calls]
        self._latencies = [0.0] * len(calls)
        self._ends: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._attempts = self._running = self._peak = 0
        self._events: Counter[str] = Counter()
        self._opened_at: list[float] = []
        self._open_since: dict[str, float] = {}
        self._open_time = 0.0

    async def call(self, index: int, attempt: Callable[[Recorded], Any]) -> None:
        """Be the caller of one call."""
        _call.set(_Call(index))
        began = monotonic()
        try:
            await attempt(self._calls[index])
        except Exception as error:
            self._errors[type(error).__name__] += 1
            self._ends[_end_of(error)] += 1
        else:
            self._ends["succeeded"] += 1
        self._latencies[index] = monotonic() - began

    async def attempt(self, record: Recorded) -> None:
        """Be the dependency: answer as it did at this time."""
        call = _call.get()
        if call.attempts:
            later = bisect_left(self._begins, monotonic(), lo=call.index + 1)
            record = self._calls[min(later + call.attempts - 1, len(self._calls) - 1)]
        call.attempts += 1
        self._attempts += 1
        self._running += 1
        self._peak = max(self._peak, self._running)
        try:
            await sleep(record.elapsed)
        finally:
            self._running -= 1
        if record.outcome == "failure":
            raise ReplayedError
        if record.outcome != "success":
            raise record.outcome

    def hear(self, event: Event) -> None:
        """Note an event of the library."""
        self._events[event.name] += 1
        circuit = getattr(event, "circuit", None)
        if circuit is None:
            return
        if event.name == "aiopatterns.circuit.opened":
            self._opened_at.append(self.origin + monotonic())
            self._open_since.setdefault(circuit, monotonic())
        elif event.name in {"aiopatterns.circuit.half_opened", "aiopatterns.circuit.closed"}:
            self._close(circuit)

    def _close(self, circuit: str) -> None:
        now = monotonic()
        self._open_time += now - self._open_since.pop(circuit, now)

    def report(self, name: str, without: Replay | None) -> Replay:
        """Return what was noted; circuits still open are open until now."""
        for circuit in list(self._open_since):
            self._close(circuit)
        return Replay(
            name=name,
            latencies=tuple(self._latencies),
            succeeded=self._ends["succeeded"],
            failed=self._ends["failed"],
            refused=self._ends["refused"],
            timed_out=self._ends["timed out"],
            errors=MappingProxyType(dict(self._errors.most_common())),
            attempts=self._attempts,
            peak=self._peak,
            events=MappingProxyType(dict(self._events.most_common())),
            opened_at=tuple(self._opened_at),
            open_time=self._open_time,
            without=without,
        )


def _end_of(error: Exception) -> str:
    if isinstance(error, RejectedError):
        return "refused"
    return "timed out" if isinstance(error, TimeoutExceededError) else "failed"


def _table(replays: Sequence[Replay]) -> str:
    """Set columns of figures side by side; a row in which nothing ever was is left out."""
    errors = list(dict.fromkeys(chain.from_iterable(each.errors for each in replays)))
    columns = [_column(each, errors) for each in replays]
    rows = [("", *(each.name for each in replays))]
    for title in columns[0]:
        cells = [column[title] for column in columns]
        if any(cell != _NEVER for cell in cells):
            rows.append((title, *cells))
    first, *others = (max(map(len, cells)) for cells in zip(*rows, strict=True))
    return "\n".join(
        "  ".join([title.ljust(first), *map(str.rjust, cells, others)]).rstrip()
        for title, *cells in rows
    )


def _column(replay: Replay, errors: Iterable[str]) -> dict[str, str]:
    """Return the figures of one replay, by the titles of the rows."""
    shown = [f"{at:.1f}" for at in replay.opened_at[:_SHOWN]]
    if len(replay.opened_at) > _SHOWN:
        shown.append("...")
    return {
        "calls": f"{replay.calls:,}",
        "succeeded": _share(replay.succeeded, replay),
        "  by a fallback": _figure(replay.fallbacks),
        "failed": _share(replay.failed, replay),
        "refused": _share(replay.refused, replay),
        "timed out": _share(replay.timed_out, replay),
        **{f"  {error}": _figure(replay.errors.get(error, 0)) for error in errors},
        "attempts": f"{replay.attempts:,} ({replay.attempts / replay.calls:.2f}x)",
        "retried": _figure(replay.retried),
        "hedged": _figure(replay.hedged),
        "most in flight": f"{replay.peak:,}",
        "circuit opened": _figure(len(replay.opened_at)),
        "  at": " ".join(shown) or _NEVER,
        "time open": f"{replay.open_time:.1f} s" if shown else _NEVER,
        **{f"p{q:g}": f"{replay.quantile(q / 100):.3f} s" for q in (50, 90, 99)},
        "longest": f"{replay.quantile(1):.3f} s",
    }


def _figure(hits: int) -> str:
    return f"{hits:,}" if hits else _NEVER


def _share(hits: int, replay: Replay) -> str:
    return f"{hits:,} ({hits / replay.calls:.1%})" if hits else _NEVER
