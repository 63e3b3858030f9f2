"""The conformance suites: whether an implementation of the protocols keeps their contract.

The protocols of :mod:`aiopatterns.backends` are for anybody to implement, over another database
or another service. Each sentence of their docstrings is held by a test here; this library's own
memory and Redis backends pass the same ones, and no others.

With pytest and its plugin pytest-asyncio, a class for each protocol is the suite::

    from aiopatterns.testing.conformance import KvConformance, LeaseConformance


    class Here:
        @pytest.fixture
        async def backend(self):
            async with MyBackend("...") as backend:
                yield backend


    class TestKv(Here, KvConformance): ...


    class TestLease(Here, LeaseConformance): ...

Without pytest, or in a loop of one's own, :func:`cases` gives the same tests as plain coroutine
functions::

    for case in cases("kv"):
        async with MyBackend("...") as backend:
            await case(backend)

The fixture gives an open backend, entered once, with nothing in it. A backend of which only some
protocols exist is tested by the suites of those; ``KvConformance`` also needs ``pubsub``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from aiopatterns.core.validate import choice, optional_positive
from aiopatterns.testing.conformance_backend import BackendConformance
from aiopatterns.testing.conformance_base import Conformance
from aiopatterns.testing.conformance_dependencies import DependenciesConformance
from aiopatterns.testing.conformance_directory import DirectoryConformance
from aiopatterns.testing.conformance_events import EventsConformance
from aiopatterns.testing.conformance_groups import GroupConformance
from aiopatterns.testing.conformance_kv import KvConformance
from aiopatterns.testing.conformance_lease import LeaseConformance
from aiopatterns.testing.conformance_limiter import LimiterConformance
from aiopatterns.testing.conformance_limits import LimitsConformance
from aiopatterns.testing.conformance_log import LogConformance
from aiopatterns.testing.conformance_pages import PagesConformance
from aiopatterns.testing.conformance_pending import PendingConformance
from aiopatterns.testing.conformance_pubsub import PubSubConformance
from aiopatterns.testing.conformance_queue import QueueConformance
from aiopatterns.testing.conformance_settling import SettlingConformance
from aiopatterns.testing.conformance_unique import UniqueConformance
from aiopatterns.testing.conformance_workers import WorkersConformance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.backends.protocols import Backend

__all__ = [
    "BackendConformance",
    "Case",
    "Conformance",
    "DependenciesConformance",
    "DirectoryConformance",
    "EventsConformance",
    "GroupConformance",
    "KvConformance",
    "LeaseConformance",
    "LimiterConformance",
    "LimitsConformance",
    "LogConformance",
    "PagesConformance",
    "PendingConformance",
    "PubSubConformance",
    "QueueConformance",
    "SettlingConformance",
    "UniqueConformance",
    "WorkersConformance",
    "cases",
    "suites",
]

Subject: TypeAlias = Literal[
    "backend", "kv", "pubsub", "lease", "limiter", "directory", "log", "queue"
]

#: The suites of each protocol.
suites: Final[Mapping[Subject, tuple[type[Conformance], ...]]] = MappingProxyType(
    {
        "backend": (BackendConformance,),
        "kv": (KvConformance,),
        "pubsub": (PubSubConformance,),
        "lease": (LeaseConformance,),
        "limiter": (LimiterConformance,),
        "directory": (DirectoryConformance,),
        "log": (LogConformance, GroupConformance, PendingConformance),
        "queue": (
            QueueConformance,
            SettlingConformance,
            WorkersConformance,
            LimitsConformance,
            UniqueConformance,
            DependenciesConformance,
            PagesConformance,
            EventsConformance,
        ),
    }
)


@final
@dataclass(frozen=True, slots=True)
class Case:
    """One test of a suite, to be awaited with an open and empty backend.

    Args:
        suite: The suite it belongs to.
        name: Name of the method.
        unit: Seconds that stand for a short time, if they are not those of the suite.
    """

    suite: type[Conformance]
    name: str
    unit: float | None = None

    def __str__(self) -> str:
        return f"{self.suite.__name__}.{self.name}"

    @property
    def sentence(self) -> str:
        """What it holds, in the words of the contract."""
        return (getattr(self.suite, self.name).__doc__ or "").strip()

    async def __call__(self, backend: Backend) -> None:
        """Run it; an ``AssertionError`` says what is wrong."""
        suite = self.suite()
        if self.unit is not None:
            suite.unit = self.unit
        await getattr(suite, self.name)(backend)


def cases(*subjects: Subject, unit: float | None = None) -> tuple[Case, ...]:
    """Return the tests of these protocols, by default of all.

    Args:
        subjects: Names of protocols, or ``backend`` for what all have in common.
        unit: Seconds that stand for a short time; see :attr:`Conformance.unit`.

    Raises:
        ValueError: There is no such protocol.
    """
    optional_positive("unit", unit)
    chosen = [suites[choice("subject", each, tuple(suites))] for each in subjects or suites]
    return tuple(
        Case(suite, name, unit)
        for each in chosen
        for suite in each
        for name in vars(suite)
        if name.startswith("test_")
    )
