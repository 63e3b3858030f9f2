"""Records of members."""

from __future__ import annotations

import pytest

from aiopatterns.cluster import Member, MemberState


@pytest.mark.parametrize(
    ("state", "living"),
    [
        (MemberState.ALIVE, True),
        (MemberState.SUSPECT, True),
        (MemberState.DEAD, False),
        (MemberState.LEFT, False),
    ],
)
def test_the_living_are_alive_or_suspect(state, living):
    assert Member("a", "a:1", state, 1, 0.0).living is living


def test_states_have_the_documented_names():
    assert [state.value for state in MemberState] == ["alive", "suspect", "dead", "left"]
