"""Redaction: what may be a secret is not shown, wherever it stands.

What a dashboard shows was written by others: arguments of jobs, messages of errors, tracebacks.
Secrets are told by the name of their field, or by their shape:

* values of fields called like ``password``, ``token``, ``api_key``, also inside of others;
* ``scheme://user:password@host``, ``Bearer ...``, ``password=...``, JWTs, private keys.

Not guaranteed: that every secret is known as one. So arguments are shown only where that was asked
for (``show_arguments``); otherwise their kinds and sizes are.
"""

from __future__ import annotations

import re
from collections.abc import Sized
from itertools import islice
from typing import Final, cast

__all__ = ["HIDDEN", "clean", "shape", "shown"]

#: Stands for what is not shown.
HIDDEN: Final = "***"
# Characters of one value that are shown, items of a collection, and how deep.
_LONGEST: Final = 200
_MOST: Final = 20
_DEEPEST: Final = 4

_WORDS: Final = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|authorization|credentials?|cookie|session(?:[_-]?id)?|signature|dsn|cvv|card[_-]?number"
)
# Some words are secrets wherever they stand, others as a word of their own.
_FIELD: Final = re.compile(rf"passw|passphrase|secret|(?:^|[^a-z])(?:{_WORDS})s?(?:$|[^a-z])")
_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Each begins where a run of its characters does, or is bounded, so that no text takes O(length^2).
_SHAPES: Final = (
    (
        re.compile(
            r"((?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@'\"]{0,200}):[^\s@]{1,500}@"
        ),
        rf"\1:{HIDDEN}@",
    ),
    (re.compile(r"\b(Bearer|Basic)\s{1,9}[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), HIDDEN),
    (
        re.compile(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)",
            re.DOTALL,
        ),
        HIDDEN,
    ),
    (
        re.compile(
            rf"((?:{_WORDS})s?[\"']?\s{{0,9}}[=:]\s{{0,9}})(\"[^\"]*\"|'[^']*'|[^\s,;&)}}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)


def clean(text: str) -> str:
    """Return ``text`` without what looks like a secret; long texts take O(length)."""
    for pattern, instead in _SHAPES:
        text = pattern.sub(instead, text)
    return text


def shown(value: object, *, name: str = "") -> str:
    """Return a value as text, without secrets, shortened.

    Args:
        value: Plain data.
        name: What its field is called.
    """
    return _shortened(clean(repr(_masked(value, name, 0))))


def shape(value: object) -> str:
    """Return what kind of value it is, and how much of it; numbers say themselves what they are."""
    if value is None or isinstance(value, (bool, int, float)):
        return type(value).__name__
    if isinstance(value, Sized):
        return f"{type(value).__name__}[{len(value)}]"
    return type(value).__name__


def _masked(value: object, name: str, depth: int) -> object:
    """Return ``value`` with hidden fields, and not too much of it."""
    if name and _FIELD.search(_CAPITAL.sub("_", name).lower()):
        return _Text(HIDDEN)
    if depth >= _DEEPEST and isinstance(value, (dict, list, tuple)):
        return _Text("...")
    if isinstance(value, dict):
        return _masked_table(cast("dict[object, object]", value), depth + 1)
    if isinstance(value, (list, tuple)):
        return _masked_list(cast("list[object]", value), depth + 1)
    return _shortened(value) if isinstance(value, str) else value


def _masked_table(table: dict[object, object], depth: int) -> dict[object, object]:
    found = {
        _masked(key, "", depth): _masked(each, str(key), depth)
        for key, each in islice(table.items(), _MOST)
    }
    return found if len(table) <= _MOST else {**found, _Text("..."): _Text("...")}


def _masked_list(items: list[object], depth: int) -> list[object]:
    some = [_masked(each, "", depth) for each in items[:_MOST]]
    return some if len(items) <= _MOST else [*some, _Text("...")]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


class _Text(str):
    """Text that is shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
