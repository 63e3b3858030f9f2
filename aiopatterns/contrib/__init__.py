"""Adapters: the library in the frameworks of others, each in a module that is imported by name."""

from __future__ import annotations

__all__: list[str] = []  # each module is imported by its own name
