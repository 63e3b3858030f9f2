from __future__ import annotations

import pytest

from aiopatterns.processor import units


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (31_525_224, "31.5 MB"), (2e9, "2 GB"),
     (999_999, "1 MB")],
)  # fmt: skip
def test_sizes(value, text):
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12, "12"), (3_552_120, "3.55 M"), (1.5e9, "1.5 G"), (95_723, "95.7 k")],
)
def test_short_counts(value, text):
    assert units.short(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0 us"), (67e-6, "67 us"), (0.045, "45 ms"), (1.234, "1.23 s"),
     (12_345, "12,345 s")],
)  # fmt: skip
def test_seconds(value, text):
    assert units.seconds(value) == text


def test_long_words_are_cut():
    assert units.cut("a" * 80) == "a" * 80
    assert units.cut("a" * 81) == "a" * 79 + "…"


def test_counts_have_separators():
    assert units.count(1234567) == "1,234,567"


def test_paths_are_printable():
    assert units.printable("a/b ü.py") == "a/b ü.py"
    assert (
        units.printable("a\x1b[31m\n\udcff")
        == "a\N{REPLACEMENT CHARACTER}[31m" + "\N{REPLACEMENT CHARACTER}" * 2
    )
