"""The script that makes the README's picture, without the half minute that the act takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from aiopatterns.testing import simulate
from tests.cli.acting import Toy

SCRIPT = Path(__file__).resolve().parent.parent.parent / "docs" / "demo_picture.py"
PICTURE = SCRIPT.parent / "assets" / "demo.svg"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("demo_picture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_moments_of_an_act_become_one_picture(script):
    seen = simulate(lambda: script.moments(Toy(6)))
    frames = script.chosen(seen, 5)
    assert frames[0] is seen[0]
    assert frames[-1] is seen[-1]
    check(script.picture(frames, "a toy"), frames=5)


def test_one_moment_is_a_picture_too(script):
    seen = simulate(lambda: script.moments(Toy(0)))[-1:]
    assert script.chosen(seen, 5) == seen


def test_the_picture_that_is_shown_is_whole_and_small(script):
    text = PICTURE.read_text("utf-8")
    assert len(text.encode()) <= script.MOST_BYTES
    check(text, frames=script.FRAMES)
    assert "2,000 of 2,000 jobs done, 0 lost" in text


def check(text: str, *, frames: int) -> None:
    """A picture loads nothing and has both colour schemes and as many frames."""
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    assert text.count('class="frame') == frames
    assert text.count("http") == 1, "its namespace alone"
    assert "url(" not in text
    assert "prefers-color-scheme: light" in text
    assert "prefers-reduced-motion: no-preference" in text
    assert text.count("@keyframes") == frames
