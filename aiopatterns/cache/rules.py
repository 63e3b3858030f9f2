"""Rules: invalidations by pattern, kept where the version of the whole cache is.

What every read asks for anyway is one record::

    version of the whole cache        6 bytes by chance, 2 bytes: how many rules there were
    rules                             [number, made before, pattern], the last ones

A stored value carries the version from *before* its load, so it tells which rules it is newer
than. It counts if the first bytes are the same and no later rule has a pattern that fits its key::

    record: c0ffee 5, rules [4 "org:*"] [5 "user:*"]
    user:1, stored under c0ffee 4    rule 5 fits: gone, wherever it is
    user:1, stored under c0ffee 5    counts
    user:1, loaded since before rule 5 and stored now under c0ffee 4: gone as well
    org:1,  stored under c0ffee 4    counts

So one write makes any number of keys invalid at once, and also what is being loaded at that
moment: that fill is stored, and is nothing. A rule is dropped when all that it made invalid has
been taken away (``patterns.py``). Rules that do not fit into :data:`MOST_BYTES` any more become one
new version, which is the safe side: everything is invalid then.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase, translate
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from aiopatterns.cache.envelope import version
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["MOST_BYTES", "Rule", "Rules", "beginning", "matcher", "shown"]

#: Bytes of a record at most: every read asks for it.
MOST_BYTES: Final = 4_096

_MARK_BYTES: Final = 8
_BASE_BYTES: Final = 6
_MOST_RULES: Final = 2**16 - 1


class Rule(NamedTuple):
    """What fits a pattern is invalid if it is older.

    Attributes:
        number: Rules are counted.
        before: When it was written at the latest, in seconds by the server's clock.
        pattern: The glob.
    """

    number: int
    before: float
    pattern: str


class Rules(NamedTuple):
    """The record of a cache.

    Attributes:
        mark: What values carry that are loaded from now on: the version of the whole cache.
        rules: The rules that were not dropped yet, in order.
    """

    mark: bytes
    rules: tuple[Rule, ...] = ()

    @staticmethod
    def opened(raw: bytes) -> Rules:
        """Return the record that ``raw`` is; any other bytes are a version of their own."""
        if len(raw) == _MARK_BYTES:
            return Rules(raw)
        try:
            rules = _decode(raw[_MARK_BYTES:])
        except CodecError:
            return Rules(blake2b(raw, digest_size=_MARK_BYTES).digest())
        return Rules(raw[:_MARK_BYTES], tuple(Rule(*each) for each in rules))

    def sealed(self) -> bytes:
        """Return the record as bytes."""
        return self.mark + MSGPACK.encode(self.rules) if self.rules else self.mark

    def allows(self, mark: bytes, text: str | None) -> bool:
        """Whether a value counts that carries ``mark``.

        Args:
            mark: The version from before its load.
            text: Its key as text; None if that is not known, so that it may fit anything.
        """
        if mark == self.mark:
            return True
        if mark[:_BASE_BYTES] != self.mark[:_BASE_BYTES]:
            return False
        number = _number(mark)
        if number > _number(self.mark):  # of a later record than this one: read anew
            return False
        return not any(
            rule.number > number and (text is None or fnmatchcase(text, rule.pattern))
            for rule in self.rules
        )

    def added(self, pattern: str, before: float) -> Rules | None:
        """Return the record with one rule more, in place of an older one for the same pattern.

        Returns:
            The record, or None if there is no room for it.
        """
        number = _number(self.mark) + 1
        if number > _MOST_RULES:
            return None
        others = (rule for rule in self.rules if rule.pattern != pattern)
        mark = self.mark[:_BASE_BYTES] + number.to_bytes(_MARK_BYTES - _BASE_BYTES, "big")
        made = Rules(mark, (*others, Rule(number, before, pattern)))
        return made if len(made.sealed()) <= MOST_BYTES else None

    def without(self, done: Collection[Rule]) -> Rules:
        """Return the record without some rules; others may have their numbers by now."""
        return self._replace(rules=tuple(rule for rule in self.rules if rule not in done))


def beginning() -> bytes:
    """Return a version of the whole cache that was never used before, without rules."""
    return version()[:_BASE_BYTES] + bytes(_MARK_BYTES - _BASE_BYTES)


def shown(key: object) -> str:
    """Return a key as the text that patterns are about; of derived types what they derive from."""
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bytes):
        return repr(bytes(key))
    return str(int(key)) if isinstance(key, int) else str(key)


def matcher(*patterns: str) -> Callable[[object], bool]:
    """Return what tells whether a key fits one of ``patterns``. 0.4 us, 5 us for a hundred."""
    fits = re.compile("|".join(map(translate, patterns)) or "(?!)").match
    return lambda key: fits(shown(key)) is not None


def _number(mark: bytes) -> int:
    return int.from_bytes(mark[_BASE_BYTES:], "big")


_decode: Final[Callable[[bytes], list[tuple[int, float, str]]]] = MSGPACK.decoder(
    list[tuple[int, float, str]]
)
