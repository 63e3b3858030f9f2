"""Peers that a benchmark measures if they are installed, and says so in one line if they are not.

All of them are in the dependency group ``bench``, so ``pip install --group bench`` in the root of the
project gets them; that takes pip 25.1 or newer.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def peer(module: str) -> Any:
    """Import ``module``; None, and a line that says so, if it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        print(f"{module} is not installed: left out (pip install --group bench, pip >= 25.1)")
        return None
