"""``aiopatterns top``: what runs over a backend, on a terminal, every second.

::

    directory "statistics", queues, services, streams  --look--> sections --> screen
                                                        every s               text, JSON

    q ends    p stands still, and goes on    arrows, page up, page down move

On a terminal it is a live screen (rich, the ``cli`` extra); elsewhere, and without rich, text is
printed once a look. ``--once`` looks once; ``--json`` prints one object a look, in one line.

An outage ends nothing: the last figures stay, with a line that says since when they are old. Only
who is not there at the beginning is an error.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from importlib.util import find_spec
from json import dumps
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
from anyio import create_task_group, open_signal_receiver, sleep_forever

from aiopatterns.backends.opening import open_backend
from aiopatterns.cli.exits import DONE, FAILED, UsageError, complain
from aiopatterns.cli.keyboard import Keyboard
from aiopatterns.cli.topscreen import Screen
from aiopatterns.cli.topsections import aligned, sections
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendError
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.dashboard.fleet import Fleet
from aiopatterns.dashboard.queues import Queues

if TYPE_CHECKING:
    from argparse import Namespace

    from anyio import CancelScope
    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.dashboard.overview import Overview

__all__ = ["top"]

# Seconds that a server may be silent before it counts as away.
_TIMEOUT: Final = 2.0


def top(options: Namespace) -> int:
    """Show a fleet until ``q``, Ctrl-C or SIGTERM; returns the exit code.

    Args:
        options: ``backend``, ``namespace``, ``queue`` (names of queues to show also without workers),
            ``interval`` in seconds, ``once`` and ``json``.

    Raises:
        UsageError: The backend is of one process.
        ValueError: Its URL, or a name, is wrong.
        BackendUnavailableError: Nobody answers at the beginning.
    """
    if options.backend.startswith("memory:"):
        msg = "--backend must be one that processes share, such as redis://localhost:6379"
        raise UsageError(msg)
    uvloop = {"use_uvloop": find_spec("uvloop") is not None}
    anyio.run(partial(_run, options), backend_options=uvloop)
    return DONE


async def _run(options: Namespace) -> None:
    backend = open_backend(options.backend, namespace=options.namespace, timeout=_TIMEOUT)
    fleet = Fleet(backend, Queues(backend, options.queue), actions=False)
    async with backend:
        if options.once:
            _tell(await fleet.look(), json=options.json, once=True)
            return
        try:
            async with create_task_group() as tasks:
                await _watch(fleet, options, tasks)
        except BaseExceptionGroup as errors:
            raise_bare(errors)


async def _watch(fleet: Fleet, options: Namespace, tasks: TaskGroup) -> None:
    """Look again and again, until a key or a signal."""
    await tasks.start(_obey, tasks.cancel_scope)
    if sys.stdout.isatty() and not options.json and find_spec("rich") is not None:
        await _show(fleet, options.interval, tasks)
    else:
        await _print(fleet, options.interval, json=options.json)
    tasks.cancel_scope.cancel()


async def _obey(scope: CancelScope, *, task_status: TaskStatus[None]) -> None:
    """End at a signal."""
    with open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


async def _print(fleet: Fleet, interval: float, *, json: bool) -> None:
    """Print each look, for ever; the beginning of an outage is a line on standard error."""
    away = False
    while True:
        try:
            _tell(await fleet.look(), json=json, once=False)
            away = False
        except BackendError as error:
            if not away:
                complain(str(error), FAILED)
            away = True
        await sleep(interval)


async def _show(fleet: Fleet, interval: float, tasks: TaskGroup) -> None:
    """Show a live screen until ``q``."""
    screen, keyboard = Screen(sys.stdout), Keyboard(sys.stdin)
    with keyboard.single() as pressed, screen:
        tasks.start_soon(_follow, fleet, screen, interval)
        await (_obey_keys(keyboard, screen) if pressed else sleep_forever())


async def _obey_keys(keyboard: Keyboard, screen: Screen) -> None:
    """Obey keys until ``q``, or until the terminal is gone."""
    async for key in keyboard.presses():
        if key == "q":
            return
        screen.press(key)


async def _follow(fleet: Fleet, screen: Screen, interval: float) -> None:
    """Look again and again."""
    while True:
        try:
            screen.show(await fleet.look())
        except BackendError as error:
            screen.fail(str(error))
        await sleep(interval)


def _tell(seen: Overview, *, json: bool, once: bool) -> None:
    """Print one look; the pace of queues cannot be told from a single one."""
    if json:
        print(_as_json(seen, once=once), flush=True)
        return
    lines = [f"{seen.backend}: queues {len(seen.queues)}, workers {len(seen.workers)}"]
    for each in sections(seen, paced=not once):
        lines += ["", *aligned(each)]
    print("\n".join(lines), end="\n" if once else "\n\n", flush=True)


def _as_json(seen: Overview, *, once: bool) -> str:
    data = msgspec.to_builtins(seen)
    del data["actions"]  # there are none here
    for queue in data["queues"] if once else ():
        queue["throughput"] = None
    return dumps(data)
