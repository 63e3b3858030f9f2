"""The events of streams: names, levels, and that they are frozen."""

from __future__ import annotations

import dataclasses

import pytest

from aiopatterns.core.telemetry import Event
from aiopatterns.messaging import streamevents


@pytest.mark.parametrize("name", streamevents.__all__)
def test_each_is_an_event_with_a_name_of_its_own(name):
    kind = getattr(streamevents, name)
    assert issubclass(kind, Event)
    assert kind.name.startswith("aiopatterns.stream.")
    assert dataclasses.fields(kind)
    assert kind.__dataclass_params__.frozen


def test_no_name_is_there_twice():
    names = [getattr(streamevents, each).name for each in streamevents.__all__]
    assert len({*names}) == len(names)
