from __future__ import annotations

import pytest

from aiopatterns.gateway.placeholders import Placeholders


@pytest.fixture
def problems():
    return []


@pytest.fixture
def filled(tmp_path, problems, monkeypatch):
    monkeypatch.setenv("ACME_KEY", "s3cret-key")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("MISSING", raising=False)
    (tmp_path / "key").write_text("from-a-file\n")
    return Placeholders(tmp_path, lambda where, what: problems.append((where, what)))


def test_variables_and_files_stand_in_texts_lists_and_tables(filled, problems, tmp_path):
    value = {
        "whole": "${ACME_KEY}",
        "part": ["redis://:${ACME_KEY}@host", "plain", 5],
        "deep": {"file": "${file:key}", "absolute": f"${{file:{tmp_path}/key}}"},
        "empty": "<${EMPTY}>",
        "number": 1.5,
    }
    assert filled.fill(value) == {
        "whole": "s3cret-key",
        "part": ["redis://:s3cret-key@host", "plain", 5],
        "deep": {"file": "from-a-file", "absolute": "from-a-file"},
        "empty": "<>",
        "number": 1.5,
    }
    assert problems == []


def test_what_is_not_there_is_told_with_its_place(filled, problems, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff")
    value = {"a": ["", "${MISSING}"], "b": {"c": "${file:none}"}, "d": "${}", "e": "${file:binary}"}
    assert filled.fill(value) == {"a": ["", ""], "b": {"c": ""}, "d": "", "e": ""}
    assert problems == [
        ("a[1]", "the environment variable MISSING is not set"),
        ("b.c", f"cannot read {tmp_path}/none: No such file or directory"),
        ("d", "${} names no variable and, without 'file:', no file"),
        ("e", f"{tmp_path}/binary is not UTF-8"),
    ]


def test_a_message_shows_the_name_and_never_the_secret(filled):
    filled.fill(["${ACME_KEY}", "${file:key}"])
    assert filled.hide("must be a URL, not 's3cret-key'") == "must be a URL, not '${ACME_KEY}'"
    assert filled.hide("from-a-file") == "${file:key}"
    assert filled.hide("nothing of it") == "nothing of it"


@pytest.mark.parametrize("piece", ["s3cr", "cret", "-key", "port 'ret-k' is wrong"])
def test_a_message_with_a_piece_of_a_secret_is_not_shown(piece, filled):
    filled.fill("${ACME_KEY}")
    hidden = filled.hide(f"not a number: {piece!r}")
    assert hidden == "is wrong; why is not shown, for that would tell of ${ACME_KEY}"


def test_a_secret_is_hidden_in_the_way_repr_writes_it(filled, monkeypatch):
    monkeypatch.setenv("ACME_KEY", "a'b\\c\n\"")
    secret = filled.fill("${ACME_KEY}")
    assert filled.hide(f"not {secret!r}") == "not '${ACME_KEY}'"


def test_a_short_secret_is_hidden_as_well(filled, monkeypatch):
    monkeypatch.setenv("ACME_KEY", "7")
    filled.fill("${ACME_KEY}")
    assert "7" not in filled.hide("must be 1 or 2, not 7")
