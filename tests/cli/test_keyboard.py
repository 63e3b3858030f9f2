from __future__ import annotations

import io
import os
import termios
from contextlib import contextmanager

import pytest

from aiopatterns.cli.keyboard import Keyboard, split


@contextmanager
def terminal():
    """A keyboard, and the end at which its keys are pressed."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, encoding="utf-8") as stream:
        try:
            yield Keyboard(stream), ours, theirs
        finally:
            os.close(ours)


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"", []),
        (b"qp", ["q", "p"]),
        (b"\x1b[A\x1b[Bq", ["up", "down", "q"]),
        (b"\x1bOA\x1bOB", ["up", "down"]),
        (b"\x1b[5~\x1b[6~", ["page up", "page down"]),
        (b"p\x1b[15~q", ["p"]),
        ("äq".encode(), ["q"]),
    ],
)
def test_keys_in_what_a_terminal_sends(data, keys):
    assert [*split(data)] == keys


@pytest.mark.real
async def test_keys_come_one_by_one():
    with terminal() as (keyboard, ours, theirs):
        before = termios.tcgetattr(theirs)
        with keyboard.single() as pressed:
            assert pressed
            assert termios.tcgetattr(theirs) != before
            os.write(ours, b"p\x1b[A")
            found = []
            async for key in keyboard.presses():
                found.append(key)
                if key == "up":
                    break
        assert found == ["p", "up"]
        assert termios.tcgetattr(theirs) == before


def test_the_terminal_is_given_back_after_an_error():
    with terminal() as (keyboard, _, theirs):
        before = termios.tcgetattr(theirs)
        with pytest.raises(OSError, match="gone"), keyboard.single():
            raise OSError("gone")
        assert termios.tcgetattr(theirs) == before


def test_without_a_terminal_there_are_no_keys():
    with Keyboard(io.StringIO()).single() as pressed:
        assert not pressed


def test_where_terminals_are_other_there_are_no_keys(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "termios", None)
    with terminal() as (keyboard, _, _), keyboard.single() as pressed:
        assert not pressed


@pytest.mark.real
async def test_the_end_of_input_is_the_end():
    read, write = os.pipe()
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as stream:
        assert [key async for key in Keyboard(stream).presses()] == []
