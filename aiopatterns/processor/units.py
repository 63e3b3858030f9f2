"""Figures as people read them: counts with separators, sizes and times with a fitting unit."""

from __future__ import annotations

from typing import Final

__all__ = ["count", "cut", "printable", "seconds", "short", "size"]

_SIZES: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_LONGEST: Final = 80
_COUNTS: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(value: int) -> str:
    """Return ``1,234,567``."""
    return f"{value:,}"


def short(value: float) -> str:
    """Return ``1.23 M``: three digits that matter."""
    return _scaled(value, _COUNTS, "")


def size(value: float) -> str:
    """Return ``31.5 MB``, in powers of ten as disks are sold."""
    return _scaled(value, _SIZES, "B")


def seconds(value: float | None) -> str:
    """Return ``1.23 s``, ``45 ms`` or ``67 us``; a dash for None."""
    if value is None:
        return "-"
    if value >= 1:
        return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.0f} us"


def printable(path: str) -> str:
    """Return a path that any terminal and any page can show, whatever bytes its name holds."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in path)


def cut(word: str) -> str:
    """Return the beginning of a word that would fill the page: files may hold one of megabytes."""
    return word if len(word) <= _LONGEST else f"{word[: _LONGEST - 1]}…"


def _scaled(value: float, scales: tuple[tuple[float, str], ...], unit: str) -> str:
    for factor, name in scales:
        if value >= factor * 0.9995:
            return f"{value / factor:.3g} {name}"
    return f"{value:.0f} {unit}".rstrip()
