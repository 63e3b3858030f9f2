"""State in the memory of one process, behind the seven protocols."""

from __future__ import annotations

from aiopatterns.backends.memory.backend import MemoryBackend

__all__ = ["MemoryBackend"]
