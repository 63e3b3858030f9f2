"""``aiopatterns demo``: the library at work, in acts.

::

    pool       flaky calls, retried, at a bounded rate
    pipeline   a slow stage holds the fast ones back
    breaker    a service falls ill; the circuit opens, probes, closes
    chaos      2,000 jobs; workers and Redis killed by SIGKILL every 2 s; lost stays 0

On a terminal each act is a live screen, elsewhere a line a second; ``--json`` prints the facts
alone. An act that does not show what it should ends the command with 1.
"""

from __future__ import annotations

import json
from functools import partial
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import anyio

from aiopatterns.cli.breakeract import BreakerAct
from aiopatterns.cli.chaos import ChaosAct
from aiopatterns.cli.exits import DONE, FAILED, ended_by_sigterm
from aiopatterns.cli.pipelineact import PipelineAct
from aiopatterns.cli.poolact import PoolAct
from aiopatterns.cli.stage import play, stage_for

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping, Sequence

    from aiopatterns.cli.scene import Act
    from aiopatterns.cli.stage import Stage

__all__ = ["ACTS", "acts", "demo"]


def _pool(seed: int, *, fast: bool) -> Act:
    return PoolAct(calls=80 if fast else 250, seed=seed)


def _pipeline(seed: int, *, fast: bool) -> Act:
    return PipelineAct(items=80 if fast else 300, seed=seed)


def _breaker(_: int, *, fast: bool) -> Act:
    return BreakerAct(seconds=1.5 if fast else 4.5)


def _chaos(seed: int, *, fast: bool) -> Act:
    if fast:
        return ChaosAct(jobs=600, seed=seed)
    return ChaosAct(seed=seed)


#: The acts, in the order in which they are played.
ACTS: Final[Mapping[str, Callable[..., Act]]] = MappingProxyType(
    {"pool": _pool, "pipeline": _pipeline, "breaker": _breaker, "chaos": _chaos}
)


def demo(options: Namespace) -> int:
    """Play the acts; returns the exit code.

    Args:
        options: ``act``, the name of one, or None for all; ``seed``; ``fast``, for shorter ones;
            ``json``, for the facts alone.

    Raises:
        BackendUnavailableError: Redis was killed and does not start again.
    """
    chosen = acts(options.act, seed=options.seed, fast=options.fast)
    uvloop = {"use_uvloop": find_spec("uvloop") is not None}
    with ended_by_sigterm():
        anyio.run(partial(_play, chosen, stage_for(json=options.json)), backend_options=uvloop)
    if options.json:
        print(json.dumps({"seed": options.seed, "acts": [*map(_facts, chosen)]}, indent=1))
    return DONE if all(each.well() for each in chosen) else FAILED


def acts(name: str | None, *, seed: int, fast: bool) -> list[Act]:
    """Return the act of a name, or all of them."""
    names = ACTS if name is None else (name,)
    return [ACTS[each](seed, fast=fast) for each in names]


async def _play(chosen: Sequence[Act], stage: Stage) -> None:
    for each in chosen:
        await play(each, stage)


def _facts(act: Act) -> Mapping[str, object]:
    return {"name": act.name, "well": act.well(), **act.facts()}
