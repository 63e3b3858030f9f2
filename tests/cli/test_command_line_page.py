"""The page of the command line names every command, and every option of those it describes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from aiopatterns.cli import app
from aiopatterns.cli.demo import ACTS

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "guides" / "command-line.md"
TEXT = PAGE.read_text("utf-8")


def commands() -> dict[str, argparse.ArgumentParser]:
    (group,) = [
        each for each in app._parser()._actions if isinstance(each, argparse._SubParsersAction)
    ]
    return dict(group.choices)


def chapter(name: str) -> str:
    return TEXT.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_every_command_is_in_the_table():
    named = re.findall(r"^\| `([a-z]+)[ `]", TEXT.partition("## Exit codes")[0], re.MULTILINE)
    assert sorted(named) == sorted(commands())


@pytest.mark.parametrize("name", ["top", "bench", "demo", "doctor"])
def test_a_chapter_has_the_options_of_its_command_and_no_others(name):
    options = {option for each in commands()[name]._actions for option in each.option_strings}
    told = {*re.findall(r"(?<![\w-])--[a-z][a-z-]*", chapter(name))}
    assert told - options == set()
    assert options - told <= {"--help", "-h", "--debug"}


def test_every_act_is_in_the_table():
    assert [*ACTS] == re.findall(r"^\| `([a-z]+)` \|", chapter("demo"), re.MULTILINE)
