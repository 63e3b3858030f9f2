"""The command line."""

from __future__ import annotations

from aiopatterns.cli.app import main

__all__ = ["main"]
