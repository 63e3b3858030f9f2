"""``aiopatterns doctor``: what this machine offers, and what could be better.

Every check is a function without arguments that gives a finding: what it looked at, what it saw,
and a piece of advice if something should change. Nothing is changed, nothing is connected to.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from aiopatterns.cli.exits import DONE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Finding", "doctor", "findings"]

_PACKAGES: Final = ("aiopatterns", "anyio", "structlog", "msgspec", "uvloop", "rich", "redis")
_EXTRA: Final = frozenset({"uvloop", "rich", "redis"})
# Each connection is a descriptor; a gateway or a broker under load has thousands.
_FEW_FILES: Final = 4096
_SMALL_DISK: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: Its name.
        seen: What was found.
        advice: What to change; None if it is well as it is.
    """

    what: str
    seen: str
    advice: str | None = None


def doctor() -> int:
    """Print all findings, then the advice; returns the exit code."""
    found = [*findings()]
    for each in found:
        print(f"{each.what:<16}{each.seen}")
    advice = [each for each in found if each.advice is not None]
    print(f"\n{len(advice)} pieces of advice" if advice else "\nall is well")
    for each in advice:
        print(f"* {each.what}: {each.advice}")
    return DONE


def findings() -> Iterator[Finding]:
    """Look at this machine."""
    yield _python()
    yield _loop()
    yield from map(_package, _PACKAGES)
    yield _processors()
    yield _files()
    yield _disk()


def _python() -> Finding:
    seen = f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}"
    return Finding("python", f"{seen} {platform.machine()}")


def _loop() -> Finding:
    if find_spec("uvloop") is not None:
        return Finding("event loop", f"uvloop {metadata.version('uvloop')}")
    if sys.platform == "win32":
        return Finding("event loop", "asyncio")
    advice = "a faster event loop: pip install 'aiopatterns[uvloop]'"
    return Finding("event loop", "asyncio", advice)


def _package(name: str) -> Finding:
    try:
        return Finding(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed (optional)" if name in _EXTRA else "not installed")


def _processors() -> Finding:
    whole = os.cpu_count() or 1
    allowed = getattr(os, "sched_getaffinity", None)
    usable = len(allowed(0)) if allowed is not None else whole
    advice = None if usable > 1 else "worker processes cannot help on one: use --executor inline"
    return Finding("processors", f"{usable} usable of {whole}", advice)


def _files() -> Finding:
    """The limit of open files, which is also that of connections."""
    try:
        import resource
    except ImportError:  # not on Windows
        return Finding("open files", "no limit known")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = f"raise it for many connections: ulimit -n {hard}" if soft < _FEW_FILES else None
    return Finding("open files", f"at most {soft} ({hard} if raised)", advice)


def _disk() -> Finding:
    """Room for temporary files."""
    import shutil

    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free
    advice = f"free some room in {place}" if free < _SMALL_DISK else None
    return Finding("temporary files", f"{free / 1e9:.1f} GB free in {place}", advice)
