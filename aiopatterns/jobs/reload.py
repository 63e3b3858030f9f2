"""Whether source files have changed: what ``--reload`` looks at.

Files are found and compared by their times of change; nothing is read. Folders that hold no source
of the project are left out: hidden ones, caches, and environments.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["sources"]

_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules", "site-packages"})


def sources(root: str | Path) -> Mapping[str, int]:
    """Return the Python files under ``root`` with their times of change; blocking.

    Args:
        root: A folder.

    Complexity: O(files), one system call for each.
    """
    return dict(_walk(str(root)))


def _walk(folder: str) -> Iterator[tuple[str, int]]:
    try:
        entries = [*os.scandir(folder)]
    except OSError:  # gone meanwhile, or not ours
        return
    if any(each.name == "pyvenv.cfg" for each in entries):
        return
    for each in entries:
        if each.is_dir(follow_symlinks=False):
            if each.name not in _LEFT_OUT and not each.name.startswith("."):
                yield from _walk(each.path)
        elif each.name.endswith(".py"):
            try:
                yield each.path, each.stat().st_mtime_ns
            except OSError:
                continue
