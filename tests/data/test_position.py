"""Positions: text and number of one place in a log."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.data.position import Position

VALUES = st.integers(0, 2**64 - 1)


@given(VALUES)
def test_text_and_back(value):
    position = Position(value)
    assert Position.parse(str(position)) == position


@given(VALUES, VALUES)
def test_the_order_is_that_of_the_log(left, right):
    assert (Position(left) < Position(right)) == (left < right)


def test_as_postgresql_writes_it():
    assert Position.parse("16/B374D848").value == 0x16_B374D848
    assert str(Position(0x16_B374D848)) == "16/B374D848"
    assert str(Position()) == "0/0"


@pytest.mark.parametrize("token", ["", "16", "/", "1/2/3", "x/1", "123456789/0", " 1/2", "1/2\n"])
def test_what_is_no_position(token):
    with pytest.raises(ValueError, match="token"):
        Position.parse(token)


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (2**64, ValueError), (1.5, TypeError)]
)
def test_numbers_are_checked(value, error):
    with pytest.raises(error, match="value"):
        Position(value)


def test_a_token_is_text():
    token: Any = 7
    with pytest.raises(TypeError, match="token"):
        Position.parse(token)
