"""Exit codes, and the one line on standard error."""

from __future__ import annotations

import signal
import sys
from threading import Thread

import pytest

from aiopatterns.cli.exits import DONE, FAILED, INTERRUPTED, USAGE, complain, ended_by_sigterm


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


def enter_elsewhere():
    with ended_by_sigterm():
        pass


def test_sigterm_is_ctrl_c_while_there_is_something_to_end():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    other = Thread(target=enter_elsewhere)  # it may not change what a signal does
    other.start()
    other.join()
    assert signal.getsignal(signal.SIGTERM) is before
