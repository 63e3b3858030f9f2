"""``aiopatterns doctor``: what this machine and a Redis offer, and what could be better.

Every check is a function that gives a finding: what it looked at, what it saw, and a piece of
advice if something should change. Nothing is changed. A server is connected to only if its URL is
given; each finding about it is a function of one record, the diagnosis.

::

    ok    as it should be
    warn  it works; the advice says what is at stake
    fail  it does not work, or will lose work: the command ends with 1
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

from anyio import run

from aiopatterns.backends import open_backend
from aiopatterns.backends.diagnosis import acl_rule, diagnose
from aiopatterns.cli.exits import DONE, FAILED
from aiopatterns.core.errors import BackendError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from aiopatterns.backends.diagnosis import Diagnosis

__all__ = ["Finding", "doctor", "findings", "server_findings"]

_PACKAGES: Final = ("aiopatterns", "anyio", "structlog", "msgspec", "uvloop", "rich", "redis")
_EXTRA: Final = frozenset({"uvloop", "rich", "redis"})
# Each connection is a descriptor; a gateway or a broker under load has thousands.
_FEW_FILES: Final = 4096
_SMALL_DISK: Final = 1 << 30
# A claim and an acknowledgement are a round trip each: above this, that is what jobs wait for.
_SLOW: Final = 0.005
# Leases and schedules go by the server's clock; logs beside each other are hard to read above this.
_SKEW: Final = 1.0
_NEARLY_FULL: Final = 0.9


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: Its name.
        seen: What was found.
        advice: What to change; None if it is well as it is.
        failed: Whether it does not work as it is.
    """

    what: str
    seen: str
    advice: str | None = None
    failed: bool = False

    @property
    def mark(self) -> str:
        """``ok``, ``warn`` or ``fail``."""
        if self.failed:
            return "fail"
        return "ok" if self.advice is None else "warn"


def doctor(options: Namespace) -> int:
    """Print all findings, then the advice; returns the exit code.

    Args:
        options: ``backend``, the URL of a server to look at as well, or None; ``acl``, to print the
            rule for its access control list and nothing else; ``namespace``, for both.

    Raises:
        ValueError: The URL or the namespace is wrong.
        ImportError: The extra ``redis`` is needed and not installed.
    """
    if options.acl:
        print(acl_rule(namespace=options.namespace))
        return DONE
    found = [*findings()]
    if options.backend is not None:
        found += run(_look, options.backend, options.namespace)
    for each in found:
        print(f"{each.mark:<6}{each.what:<16}{each.seen}")
    advice = [each for each in found if each.advice is not None]
    print("\nadvice:" if advice else "\nall is well")
    for each in advice:
        print(f"* {each.what}: {each.advice}")
    return FAILED if any(each.failed for each in found) else DONE


async def _look(url: str, namespace: str) -> list[Finding]:
    """Look at the server behind ``url``."""
    backend = open_backend(url, namespace=namespace)
    try:
        async with backend:
            diagnosis = await diagnose(backend)
    except BackendError as error:
        return [Finding("backend", backend.url, str(error), failed=True)]
    if diagnosis is None:
        advice = "what it holds goes with this process: name a Redis to keep it"
        return [Finding("backend", backend.url, advice)]
    return [*server_findings(diagnosis)]


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


def server_findings(found: Diagnosis) -> Iterator[Finding]:
    """Look at a server."""
    yield Finding("backend", found.url)
    yield _server(found)
    yield _persistence(found)
    yield _policy(found)
    yield _memory(found)
    yield _clients(found)
    yield _latency(found)
    yield _clock(found)
    yield _rights(found)


def _server(found: Diagnosis) -> Finding:
    """Which one it is. One older than the floor is refused by the backend itself."""
    seen = f"Redis {found.version}, {found.mode}, {found.role}"
    if found.role != "slave":
        return Finding("server", seen)
    advice = "a replica takes no writes: name its primary, or use redis+sentinel://"
    return Finding("server", seen, advice, failed=True)


def _persistence(found: Diagnosis) -> Finding:
    if not found.appendonly:
        advice = (
            "a server that dies loses what came after its last snapshot, or all: "
            "appendonly yes, appendfsync everysec"
        )
        return Finding("persistence", "no append-only file", advice)
    when = "appendfsync unknown" if found.fsync is None else f"appendfsync {found.fsync}"
    if found.fsync == "no":
        advice = "a power cut may lose half a minute of writes: appendfsync everysec"
        return Finding("persistence", f"append-only file, {when}", advice)
    return Finding("persistence", f"append-only file, {when}")


def _policy(found: Diagnosis) -> Finding:
    if found.policy == "noeviction":
        return Finding("when full", found.policy)
    advice = f"{found.policy} deletes jobs when memory runs out: maxmemory-policy noeviction"
    return Finding("when full", found.policy, advice, failed=True)


def _memory(found: Diagnosis) -> Finding:
    used = f"{found.memory / 1e6:.1f} MB used"
    if not found.max_memory:
        advice = "set maxmemory below what the machine has: full, it then refuses instead of dying"
        return Finding("memory", f"{used}, no limit", advice)
    seen = f"{used} of {found.max_memory / 1e6:.1f} MB"
    if found.memory < _NEARLY_FULL * found.max_memory:
        return Finding("memory", seen)
    return Finding("memory", seen, "it is nearly full: raise maxmemory, or free some")


def _clients(found: Diagnosis) -> Finding:
    seen = f"{found.clients} of {found.max_clients}"
    if found.clients < _NEARLY_FULL * found.max_clients:
        return Finding("connections", seen)
    return Finding("connections", seen, "few are left: raise maxclients, or look for leaks")


def _latency(found: Diagnosis) -> Finding:
    seen = f"p50 {found.latency_p50 * 1e3:.2f} ms, p99 {found.latency_p99 * 1e3:.2f} ms"
    if found.latency_p50 <= _SLOW:
        return Finding("round trip", seen)
    advice = "move the workers nearer to the server; each job takes a few round trips"
    return Finding("round trip", seen, advice)


def _clock(found: Diagnosis) -> Finding:
    seen = f"the server is {abs(found.skew):.3f} s {'ahead' if found.skew >= 0 else 'behind'}"
    if abs(found.skew) <= _SKEW:
        return Finding("clock", seen)
    return Finding("clock", seen, "set both clocks by NTP: times in logs and schedules disagree")


def _rights(found: Diagnosis) -> Finding:
    if found.missing is None:
        advice = "the user may not use MULTI, by which rights are looked at: see doctor --acl"
        return Finding("rights", "unknown", advice)
    if not found.missing:
        return Finding("rights", "all that are needed")
    advice = "give the user what it lacks: aiopatterns doctor --acl prints the rule"
    return Finding("rights", f"missing: {', '.join(found.missing)}", advice, failed=True)
