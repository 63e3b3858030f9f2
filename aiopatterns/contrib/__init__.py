"""Adapters: the library in the frameworks of others, each in a module that is imported by name."""

from __future__ import annotations
