"""Peers that a benchmark measures if they are installed, and says so in one line if they are not."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def peer(module: str) -> Any:
    """Import ``module``; None, and a line that says so, if it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        print(f"{module} is not installed: left out (pip install --group bench)")
        return None
