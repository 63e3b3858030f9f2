from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from aiopatterns.cli import stage as module
from aiopatterns.cli.scene import Figure, Scene
from aiopatterns.cli.stage import LiveStage, NoStage, PlainStage, drawn, play, stage_for
from aiopatterns.testing import simulate
from tests.cli.acting import Terminal, Toy


@pytest.mark.parametrize(
    ("json", "out", "err", "rich", "kind"),
    [
        (False, Terminal, io.StringIO, True, LiveStage),
        (False, Terminal, io.StringIO, False, PlainStage),
        (False, io.StringIO, Terminal, True, PlainStage),
        (True, io.StringIO, Terminal, True, LiveStage),
        (True, Terminal, io.StringIO, True, NoStage),
        (True, Terminal, Terminal, False, NoStage),
    ],
)
def test_the_stage_fits_who_looks(monkeypatch, json, out, err, rich, kind):
    monkeypatch.setattr(sys, "stdout", out())
    monkeypatch.setattr(sys, "stderr", err())
    if not rich:
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert isinstance(stage_for(json=json), kind)


def test_a_terminal_without_rich_is_told_what_is_missing(monkeypatch):
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    stage = stage_for(json=False)
    simulate(lambda: play(Toy(), stage))
    simulate(lambda: play(Toy(), stage))
    lines = out.getvalue().splitlines()
    assert "aiopatterns[cli]" in lines[0]
    assert out.getvalue().count("aiopatterns[cli]") == 1


def test_plain_lines():
    out = io.StringIO()
    simulate(lambda: play(Toy(), PlainStage(out)))
    lines = out.getvalue().splitlines()
    assert lines[0] == "== a toy"
    assert "passed 1  | second 1" in lines
    assert lines[-2:] == ["passed 3  | second 3", "ok   3 s passed"]


def test_an_act_that_goes_wrong_says_so():
    out = io.StringIO()
    simulate(lambda: play(Toy(0, good=False), PlainStage(out)))
    assert out.getvalue().splitlines()[-2:] == ["passed 0", "FAIL 0 s passed"]


def test_a_live_screen():
    out = Terminal()
    simulate(lambda: play(Toy(), LiveStage(out)))
    text = out.getvalue()
    for each in ("a toy", "passed", "second 3", "of it", "ok   3 s passed"):
        assert each in text


def test_nothing_is_shown_beside_json(capsys):
    simulate(lambda: play(Toy(), NoStage()))
    assert capsys.readouterr() == ("", "")


def test_the_error_of_an_act_ends_its_screen():
    with pytest.raises(OSError, match="no disk"):
        simulate(lambda: play(Toy(1, error=OSError("no disk")), NoStage()))


def test_an_act_of_figures_alone(monkeypatch):
    monkeypatch.setattr(Toy, "scene", lambda _: Scene((Figure("passed", "3"),)))
    out = io.StringIO()
    Console(file=out, width=120).print(drawn(Toy()))
    assert len(out.getvalue().splitlines()) == 6


def test_a_picture_has_a_fixed_width():
    out = io.StringIO()
    Console(file=out, width=120).print(drawn(Toy()))
    assert {len(line) for line in out.getvalue().splitlines()} == {88}
