"""Events: what a pattern pays for them without a listener, and with one.

Goals: at most 0.2 us without a listener, at most 3 us with one, each against a call of an empty
function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aiopatterns.core.telemetry import Event, emit, install_listener, listening
from benchmarks.harness import Bench

CALLS = 100_000
bench = Bench("core/telemetry")


@dataclass(frozen=True, slots=True)
class Opened(Event):
    """An event of the usual size."""

    name: ClassVar[str] = "aiopatterns.bench.opened"

    circuit: str
    failures: int


def nothing(event: object) -> None:
    """What a bare call costs."""


def tell(number: int) -> None:
    """Emit as every pattern of the library does."""
    if listening():
        emit(Opened("billing", number))


silent = bench.case("an event without a listener, goal 0.2 us", clock="cpu", unit="us/event")


@silent.ours("if listening(): emit(Event(...))")
async def without_listener() -> int:
    assert not listening()
    for number in range(CALLS):
        tell(number)
    return CALLS


@silent.limit("call of an empty function")
async def bare_call() -> int:
    for number in range(CALLS):
        nothing(number)
    return CALLS


heard = bench.case("an event with a listener, goal 3 us", clock="cpu", unit="us/event")


@heard.ours("if listening(): emit(Event(...)), one listener")
async def with_listener() -> int:
    seen = [0]

    def count(event: Event) -> None:
        seen[0] += 1

    with install_listener(count):
        for number in range(CALLS):
            tell(number)
    assert seen == [CALLS]
    return CALLS


@heard.limit("building the record and calling the listener")
async def bare_record() -> int:
    for number in range(CALLS):
        nothing(Opened("billing", number))
    return CALLS


silent.under(0.2)
heard.under(3)

if __name__ == "__main__":
    bench.main()
