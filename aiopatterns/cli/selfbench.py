"""``aiopatterns bench``: what the library costs on this machine.

::

    cases within this process             flow, resilience, cache, events
    cases over a backend, in memory       jobs, streams, requests, values, limits
    the same on an embedded Redis         if a server program is there

Each case is calibrated, repeated, and told by its median and its spread
(:mod:`aiopatterns.cli.calibration`). It is a measure of the library alone; how it compares with
others is measured by the project's own benchmarks.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from aiopatterns.backends.opening import open_backend
from aiopatterns.cli.benchcases import LOCAL
from aiopatterns.cli.benchpage import render
from aiopatterns.cli.benchstore import store_cases
from aiopatterns.cli.calibration import Measured, repeated
from aiopatterns.cli.exits import DONE, ended_by_sigterm
from aiopatterns.cli.machine import facts
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.processor.output import Output
from aiopatterns.processor.units import short

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from aiopatterns.cli.benchcases import Case

__all__ = ["bench"]

_GROUP: Final = "over memory://"
_EMBEDDED: Final = "over embedded://"


class _Effort(NamedTuple):
    """How long a case is measured."""

    repeats: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.repeats} repeats of {self.seconds:g} s for each; time is the median,"
            " spread lies between the fastest and the slowest"
        )


_FULL: Final = _Effort(7, 0.3)
_QUICK: Final = _Effort(3, 0.05)


def bench(options: Namespace) -> int:
    """Measure, and print; returns the exit code.

    Args:
        options: ``quick``; ``html`` and ``json``, names of files or None.

    Raises:
        OSError: A file cannot be written; that is told before anything is measured.
    """
    effort = _QUICK if options.quick else _FULL
    with ExitStack() as stack:
        stack.enter_context(ended_by_sigterm())
        page, data = (
            None if path is None else stack.enter_context(Output(path))
            for path in (options.html, options.json)
        )
        machine = facts()
        print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
        uvloop = {"use_uvloop": find_spec("uvloop") is not None}
        results = anyio.run(_measure, effort, backend_options=uvloop)
        print(f"\n{effort}")
        if page is not None:
            page.write(render(results, machine, effort=str(effort)))
        if data is not None:
            data.write(_as_json(results, machine, effort))
    return DONE


async def _measure(effort: _Effort) -> list[Measured]:
    """Measure all cases, those on Redis if one can be started."""
    results = await _measure_all(LOCAL, effort)
    async with open_backend("memory://") as backend:
        results += await _measure_all(store_cases(backend, _GROUP), effort)
    try:
        async with open_backend("embedded://") as backend:
            results += await _measure_all(store_cases(backend, _EMBEDDED), effort)
    except (BackendUnavailableError, ImportError) as error:
        print(f"\n{_EMBEDDED}: not measured: {error}", flush=True)
    return results


async def _measure_all(cases: Sequence[Case], effort: _Effort) -> list[Measured]:
    results: list[Measured] = []
    for case in cases:
        if not results or results[-1].group != case.group:
            print(f"\n{case.group}", flush=True)
        async with AsyncExitStack() as stack:
            run = await case.open(stack)
            operations, taken = await repeated(run, repeats=effort.repeats, seconds=effort.seconds)
        results.append(Measured(case.group, case.name, operations, taken))
        print(_line(results[-1]), flush=True)
    return results


def _line(each: Measured) -> str:
    return f"  {each.name:<56} {each.time:>8} {short(each.rate):>8}/s {each.spread:>5.0%}"


def _as_json(results: Sequence[Measured], machine: dict[str, str], effort: _Effort) -> str:
    told = [
        {
            "group": each.group,
            "name": each.name,
            "operations": each.operations,
            "seconds": each.seconds,
            "median": each.median,
            "spread": each.spread,
            "per_second": each.rate,
        }
        for each in results
    ]
    page = {"machine": machine, "effort": effort._asdict(), "results": told}
    return json.dumps(page, indent=1) + "\n"
