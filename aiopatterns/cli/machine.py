"""The facts of this machine that a figure is worth nothing without."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import aiopatterns

__all__ = ["facts"]

_CPUS: Final = Path("/proc/cpuinfo")


def facts() -> dict[str, str]:
    """Return what there is to know, by name."""
    loop = f"uvloop {metadata.version('uvloop')}" if find_spec("uvloop") else "asyncio"
    return {
        "aiopatterns": aiopatterns.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "event loop": loop,
        "system": f"{sys.platform} {platform.machine()}",
        "processor": _processor(),
        "processors": str(os.cpu_count() or 1),
    }


def _processor() -> str:
    """Return the name of the processor, as the system calls it."""
    try:
        lines = _CPUS.read_text("utf-8").splitlines()
    except OSError:  # another system than Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
