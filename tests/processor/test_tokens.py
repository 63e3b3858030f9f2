from __future__ import annotations

import re
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.processor import tokens
from tests.processor.reference import SOURCE, plain_names


def plain_words(data: bytes) -> Counter[bytes]:
    text = data.decode("utf-8", "replace")
    return Counter(run.lower().encode() for run in re.findall(r"[^\W\d_]+", text))


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda each: each.encode()))
def test_words_are_runs_of_letters(data):
    assert Counter(tokens.words(data)) == plain_words(data)


def test_words_of_ascii_and_of_all_else():
    assert tokens.words(b"Hello, WORLD_x2y don't") == [b"hello", b"world", b"x", b"y", b"don", b"t"]
    assert tokens.words("Äpfel\nplain Line".encode()) == [b"plain", b"line", "äpfel".encode()]
    assert tokens.words(b"caf\xe9s") == [b"caf", b"s"]
    assert tokens.words(b"") == []


@given(
    st.lists(st.sampled_from([b"word", b"\n", b" ", b"-", "ä".encode(), b"x" * 9]), max_size=60),
    st.integers(1, 12),
)
def test_blocks_never_cut_a_word(tmp_path_factory, parts, size):
    path = tmp_path_factory.mktemp("blocks") / "file"
    path.write_bytes(b"".join(parts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "BLOCK", size)
        blocks = [*tokens.blocks(str(path))]
    assert b"".join(blocks) == path.read_bytes()
    assert all(blocks)
    counted = sum((Counter(tokens.words(each)) for each in blocks), Counter())
    assert counted == plain_words(path.read_bytes())


def test_blocks_of_an_empty_file_and_of_none(tmp_path):
    (tmp_path / "empty").touch()
    assert [*tokens.blocks(str(tmp_path / "empty"))] == []
    with pytest.raises(FileNotFoundError):
        next(tokens.blocks(str(tmp_path / "none")))


def names_of(source: str) -> Counter[str]:
    counts = Counter(tokens.names(tokens.take_apart(source).code))
    return Counter({name.decode(): count for name, count in tokens.tidy(counts).items()})


def test_parts_add_up():
    parts = tokens.take_apart(SOURCE)
    assert parts.code_size + parts.comments_size + parts.strings_size == len(SOURCE)
    assert parts.comments_size == len("# a comment with words")
    assert "docstring" not in parts.code
    assert "def größe(value, *, other_value=0x1F):" in parts.code


def test_names_are_those_of_pythons_tokenizer():
    assert names_of(SOURCE) == plain_names(SOURCE)


@pytest.mark.parametrize("package", ["json", "email", "asyncio"])
def test_names_of_real_sources(package):
    for path in Path(sysconfig.get_path("stdlib"), package).glob("*.py"):
        source = path.read_text("utf-8")
        assert names_of(source) == plain_names(source), path.name


@given(st.text(alphabet="'\"#\\\nrab ", max_size=60))
def test_taking_apart_never_fails(source):
    parts = tokens.take_apart(source)
    assert parts.code_size + parts.comments_size + parts.strings_size == len(source)


def test_an_unterminated_string_takes_no_time():
    source = "x = '''" + "\\'a" * 200_000 + "'''".join(["'"] * 3)
    assert tokens.take_apart(source).code_size > 0


def test_tidy_drops_what_is_no_name():
    counts = {b"value": 3, b"x": 9, b"12ab": 1, b"return": 2, b"rb": 4, b"_": 1, b"_x": 1}
    assert tokens.tidy(counts) == {b"value": 3, b"_x": 1}


@given(st.dictionaries(st.text("abcäß", min_size=1, max_size=8), st.integers(1, 1 << 40)))
def test_a_vocabulary_survives_packing(counts):
    packed = tokens.pack({term.encode(): count for term, count in counts.items()})
    assert tokens.unpack(packed) == counts
