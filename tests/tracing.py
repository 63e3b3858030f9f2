"""Coverage follows the first runs of a sweep only: the other hundreds visit the same lines.

A scenario that is run under 200 seeds, or cancelled at 300 awaits, costs three to six times as much
while coverage is measured, and its later runs add nothing to it. So the tracer is laid aside after
the first simulated runs of each test, and all the time in a test that is marked ``untraced``: one
that does very much of the same, as a soak or a simulation of a hundred nodes does. Nor is it
followed on uvloop where it is on asyncio: that is the same code once more.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.testing.sealed import SealedLoop

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["Tracing"]

# A run ends with two more, short ones, in which the runner closes generators and threads.
FOLLOWED = 17 * 3


@contextmanager
def laid_aside() -> Iterator[None]:
    """Run without the tracer, if there is one, and take it up again in the same frame."""
    tracer = sys.gettrace()
    if tracer is None:
        yield
        return
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


class Tracing:
    """A plugin that counts the simulated runs of each test."""

    def __init__(self) -> None:
        self.runs = 0
        self._repeats = False
        self._patch = pytest.MonkeyPatch()

    def pytest_configure(self, config: pytest.Config) -> None:
        """Count the runs of simulated loops from here on."""
        self._repeats = "asyncio" in config.getoption("--suite-loops").split(",")
        follow = SealedLoop.run_until_complete

        def run(loop: SealedLoop, future: Any) -> Any:
            self.runs += 1
            if self.runs <= FOLLOWED:
                return follow(loop, future)
            with laid_aside():
                return follow(loop, future)

        self._patch.setattr(SealedLoop, "run_until_complete", run)  # the public one keeps its names

    def pytest_unconfigure(self) -> None:
        """Leave the loop as it was."""
        self._patch.undo()

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Begin to count anew, or leave this test untraced."""
        self.runs = 0
        if self._is_followed(pyfuncitem):
            return (yield)
        with laid_aside():
            return (yield)

    def _is_followed(self, item: pytest.Function) -> bool:
        if item.get_closest_marker("untraced") is not None:
            return False
        call = getattr(item, "callspec", None)
        return not (self._repeats and call is not None and "uvloop" in call.id.split("-"))
