from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from aiopatterns.cli import stage
from aiopatterns.cli.demo import ACTS
from aiopatterns.cli.scene import Bar, Figure, Scene, Tone

if TYPE_CHECKING:
    from aiopatterns.cli.scene import Act


def test_a_scene_is_plain_data():
    scene = Scene((Figure("done", "3"),), (Bar("all", 0.5, "3 of 6"),))
    assert scene == Scene((Figure("done", "3", "plain"),), (Bar("all", 0.5, "3 of 6", "busy"),), ())


def test_every_tone_has_a_style():
    assert {*get_args(Tone)} == {*stage._STYLES}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", ACTS)
def test_an_act_can_be_seen_before_it_begins(name, fast):
    act: Act = ACTS[name](0, fast=fast)
    assert act.name == name
    assert act.title
    assert act.scene().figures
    assert not act.well()
    assert act.facts()
    assert act.ending()
