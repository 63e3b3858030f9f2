"""The third act: a service falls ill, and a circuit breaker spares it, and the callers, the calls."""

from __future__ import annotations

from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from aiopatterns.cli.scene import Bar, Figure, Scene
from aiopatterns.cli.stopwatch import Stopwatch
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import CircuitOpenError
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.trip import Consecutive, Trip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.cli.scene import Tone

__all__ = ["BreakerAct"]

_PAUSE: Final = 0.02  # between two calls
_FAILURES: Final = 5  # in a row, that open the circuit
_OPEN: Final = 0.1  # of the act's time: the break
_NOTES: Final = 6
_TONES: Final[Mapping[CircuitState, Tone]] = MappingProxyType(
    {CircuitState.CLOSED: "good", CircuitState.OPEN: "bad", CircuitState.HALF_OPEN: "busy"}
)


@final
class BreakerAct:
    """A circuit opens when a service falls ill, probes, and closes when it is well again.

    Args:
        seconds: How long it is called; it is ill in the middle third.
    """

    __slots__ = (
        "_ask",
        "_breaker",
        "_failed",
        "_good",
        "_notes",
        "_opened",
        "_refused",
        "_watch",
        "_whole",
        "name",
        "title",
    )

    def __init__(self, *, seconds: float = 4.5) -> None:
        self.name: str = "breaker"
        self.title: str = "circuit breaker: a service falls ill and recovers"
        self._whole = seconds
        self._breaker = CircuitBreaker(
            "service", trip=Trip(Consecutive(_FAILURES)), open_for=_OPEN * seconds
        )
        self._ask = self._breaker(self._serve)
        self._good = self._failed = self._refused = self._opened = 0
        self._watch = Stopwatch()
        self._notes: deque[str] = deque(maxlen=_NOTES)

    async def run(self) -> None:
        """Play to the end."""
        self._watch.start()
        with self._breaker.watch(self._changed):
            while self._passed() < 1.0:
                await self._call()
                await sleep(_PAUSE)

    def scene(self) -> Scene:
        """Return what is to be seen now."""
        state = self._breaker.state
        figures = (
            Figure("circuit", state.value.replace("_", "-"), _TONES[state]),
            Figure("answered", f"{self._good}", "good"),
            Figure("failed", f"{self._failed}", "bad"),
            Figure("refused at once", f"{self._refused}"),
            Figure("opened", f"{self._opened}", "dim"),
        )
        passed = self._passed()
        health = "ill" if self._is_ill() else "well"
        bar = Bar("service", passed, f"it is {health}", "bad" if self._is_ill() else "good")
        return Scene(figures, (bar,), tuple(self._notes), _NOTES)

    def facts(self) -> Mapping[str, object]:
        """Return how it went."""
        return {
            "answered": self._good,
            "failed": self._failed,
            "refused": self._refused,
            "opened": self._opened,
            "state": self._breaker.state.value,
        }

    def ending(self) -> str:
        """Say how it went."""
        return (
            f"{self._failed} calls reached the ill service, {self._refused} were spared;"
            f" opened {self._opened} times, now {self._breaker.state.value}"
        )

    def well(self) -> bool:
        """Whether it opened, spared calls, and is closed again."""
        return self._breaker.state is CircuitState.CLOSED and self._refused > self._failed > 0

    def _passed(self) -> float:
        """The share of the act that has passed."""
        return min(1.0, self._watch.seconds / self._whole)

    def _is_ill(self) -> bool:
        return 1 / 3 <= self._passed() < 2 / 3

    async def _call(self) -> None:
        try:
            await self._ask()
        except ConnectionError:
            self._failed += 1
        except CircuitOpenError:
            self._refused += 1
        else:
            self._good += 1

    async def _serve(self) -> None:
        """Be the service."""
        if self._is_ill():
            raise ConnectionError("the service is ill")

    def _changed(self) -> None:
        """Note the state that the circuit is in now."""
        state = self._breaker.state
        self._opened += state is CircuitState.OPEN
        self._notes.append(f"{self._passed() * self._whole:5.1f} s  {state.value}")
