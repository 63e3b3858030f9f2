"""Names: how a cache calls its keys in the shared tier, and how long they live there.

====================================  =================================  ==========================
key of ``Kv``                         holds                              lives
====================================  =================================  ==========================
``cache:<name>:k:<key>``              an envelope where nothing was      as long as its value
``cache:<name>:k:<key>``              one in the place of something      so too, :data:`GRACE` at least
``cache:<name>:k:<key>``              a tombstone                        :data:`GRACE`
``cache:<name>:v:<tag>``              the version of a tag               :data:`LONGEST`
``cache:<name>:v:``                   that of the whole cache, rules     :data:`LONGEST`
``cache:<name>:l:<key>:<writing>``    whose turn it is to load           a lease
====================================  =================================  ==========================

Keys of different types never meet: ``"1"`` is ``s1``, ``1`` is ``i1``, ``b"1"`` is ``b31``. Nor do those
of different caches, for a colon in ``<name>`` is escaped. What is too long for a name is its hash.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.names import escaped
from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from aiopatterns.cache.invalidation import Key

__all__ = ["GRACE", "LONGEST", "WRITTEN_WITHIN", "FarNames"]

#: Seconds that a tombstone lives, or what takes its place: what was read before it is not filled in
#: any more after that.
GRACE: Final = 60.0
#: Seconds that anything lives in the shared tier at most: 30 days. An eternal value is loaded anew.
LONGEST: Final = 30 * 86_400.0
#: Seconds after which a write that compares nothing is too late, or a rule: nobody waits for it.
WRITTEN_WITHIN: Final = 0.5

_LONGEST_NAME: Final = 128  # bytes of the name of a cache
_LONGEST_PART: Final = 512  # bytes of a key or tag; names have at most 1,024
_INT_BITS: Final = 63


@final
class FarNames:
    """The names of one cache.

    Args:
        name: Name of the cache.

    Raises:
        ValueError: ``name`` is longer than 128 bytes.

    Complexity: O(length).
    """

    __slots__ = ("_turns", "_versions", "channel", "keys")

    def __init__(self, name: str) -> None:
        if len(text("name", name).encode()) > _LONGEST_NAME:
            msg = f"name of a shared cache must be at most {_LONGEST_NAME} bytes, not {name!r}"
            raise ValueError(msg)
        self.channel: str = f"cache:{escaped(name, ':')}"
        #: What the names of all values begin with.
        self.keys: str = f"{self.channel}:k:"
        self._turns = f"{self.channel}:l:"
        self._versions = f"{self.channel}:v:"

    def key(self, key: Key) -> str:
        """Return where the value of ``key`` is.

        Raises:
            TypeError: ``key`` is no text, bytes or whole number.
            ValueError: It is a text that UTF-8 cannot hold, or a number of more than 64 bits.
        """
        return self.keys + _part(key)

    def shown(self, name: str) -> str | None:
        """Return the key of a value as text, given the name; None if the name does not tell it.

        That is so if the key was too long for a name, or if the name is none of ours.
        """
        part = name.removeprefix(self.keys)
        if part[:1] not in {"s", "i", "b"}:
            return None
        if part[0] != "b":
            return part[1:]
        try:
            return repr(bytes.fromhex(part[1:]))
        except ValueError:
            return None

    def version(self, tag: str) -> str:
        """Return where the version of ``tag`` is; "" is the whole cache."""
        return self._versions + _fitting(tag, tag)

    def turn(self, key: Key, raw: bytes | None) -> str:
        """Return the turn to load ``key`` for those who saw that it held ``raw``.

        Whoever came after an invalidation does not wait for those who came before.
        """
        writing = "" if raw is None else blake2b(raw, digest_size=8).hexdigest()
        return f"{self._turns}{_part(key)}:{writing}"


def _part(key: Key) -> str:
    if isinstance(key, str):
        return _fitting("s" + key, key)
    if isinstance(key, bytes):
        return _fitting("b" + key.hex(), key)
    if isinstance(key, int):
        if key.bit_length() > _INT_BITS:
            msg = f"a key of a shared cache must be a number of at most 64 bits, not {key!r}"
            raise ValueError(msg)
        return f"i{int(key)}"
    msg = f"a key of a shared cache must be a str, bytes or int, not {key!r}"
    raise TypeError(msg)


def _fitting(part: str, shown: str | bytes) -> str:
    try:
        encoded = part.encode()
    except UnicodeEncodeError as error:
        msg = f"keys and tags of a shared cache must be text that UTF-8 can hold, not {shown!r}"
        raise ValueError(msg) from error
    if len(encoded) <= _LONGEST_PART:
        return part
    return "#" + blake2b(encoded, digest_size=32).hexdigest()
