"""Exit codes, and the one line on standard error."""

from __future__ import annotations

import sys

from aiopatterns.cli.exits import DONE, FAILED, INTERRUPTED, USAGE, complain


def test_the_codes():
    assert (DONE, FAILED, USAGE, INTERRUPTED) == (0, 1, 2, 130)


def test_a_complaint_is_one_line(capsys):
    assert complain("no such\n  file", USAGE) == USAGE
    assert capsys.readouterr().err == "aiopatterns: no such file\n"


def test_a_closed_standard_error_is_no_error(monkeypatch):
    def refuse(*args, **kwargs):
        raise BrokenPipeError

    monkeypatch.setattr(sys.stderr, "write", refuse)
    assert complain("what", 7) == 7
