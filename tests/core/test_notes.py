"""Notes on errors, also on those that refuse them."""

from __future__ import annotations

from dataclasses import dataclass

from aiopatterns.core.notes import in_words, note


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


def test_a_note_is_added():
    error = ValueError("x")
    note(error, "first")
    note(error, "second")
    assert error.__notes__ == ["first", "second"]


def test_an_error_that_cannot_be_changed_stays_as_it_is():
    error = Frozen(3)
    note(error, "here")
    assert not hasattr(error, "__notes__")
    assert error.code == 3


def test_an_error_in_words():
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    assert in_words(ValueError("no")) == "ValueError: no"
    assert in_words(Broken()) == "Broken"
