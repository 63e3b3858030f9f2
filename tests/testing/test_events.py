from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.testing import capture_events


@dataclass(frozen=True, slots=True)
class Happened(Event):
    name: ClassVar[str] = "aiopatterns.test.happened"
    number: int


def test_events_inside_the_block_are_collected():
    emit(Happened(0))
    with capture_events() as events:
        assert listening()
        emit(Happened(1))
        assert events == [Happened(1)]
        emit(Happened(2))
    emit(Happened(3))
    assert events == [Happened(1), Happened(2)]
    assert not listening()


def test_listening_ends_when_the_block_fails():
    with pytest.raises(ZeroDivisionError), capture_events():
        raise ZeroDivisionError
    assert not listening()


def test_blocks_may_be_nested():
    with capture_events() as outer, capture_events() as inner:
        emit(Happened(1))
    assert outer == inner == [Happened(1)]
    assert outer is not inner
