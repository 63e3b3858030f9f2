"""Where a command has its key: what a cluster needs to know to send it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiopatterns.backends.redis.connection import Command, Word

__all__ = ["key_of"]

# Commands that name no key, and may go to any server.
_KEYLESS: Final = frozenset(
    {
        "AUTH", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "ECHO", "FLUSHALL", "INFO",
        "PING", "PUBLISH", "SCAN", "SCRIPT", "TIME", "WAIT",
    }
)  # fmt: skip
# Commands whose first word is that of a subcommand: the key is the second.
_SECOND: Final = frozenset({"MEMORY", "OBJECT", "XGROUP", "XINFO"})
# Commands that say how many keys follow: the position of that number.
_COUNTED: Final = MappingProxyType({"EVAL": 2, "EVALSHA": 2, "ZUNION": 1, "ZINTER": 1})
# Commands whose keys follow this word.
_BEHIND: Final = MappingProxyType({"XREAD": "STREAMS", "XREADGROUP": "STREAMS"})


def key_of(command: Command) -> bytes | None:
    """Return the first key of ``command``, or None if it names none."""
    name = str(command[0]).upper()
    if name in _KEYLESS:
        return None
    if name in _COUNTED:
        position = _COUNTED[name]
        return _key(command[position + 1]) if int(command[position]) else None
    if name in _BEHIND:
        words = [each.upper() if isinstance(each, str) else each for each in command]
        return _key(command[words.index(_BEHIND[name]) + 1])
    return _key(command[2 if name in _SECOND else 1])


def _key(word: Word) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()
