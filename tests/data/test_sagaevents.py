"""Events of sagas: what they are called, and that a saga tells them."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.errors import SagaError
from aiopatterns.data import sagaevents
from aiopatterns.data.saga import Saga
from aiopatterns.data.sagastore import MemorySagaStore
from aiopatterns.testing import capture_events


def test_every_event_has_a_name_of_its_own():
    kinds = [getattr(sagaevents, each) for each in sagaevents.__all__]
    assert len({each.name for each in kinds}) == 7
    assert all(each.name.startswith("aiopatterns.saga.") for each in kinds)


async def test_a_saga_tells_why_it_turns_back_and_how_it_ends():
    saga: Saga[Any] = Saga("trip", MemorySagaStore())

    @saga.step
    async def fly(_: Any) -> None:
        raise ValueError("fog")

    with capture_events() as events:
        with pytest.raises(SagaError):
            await saga.run({}, id="1")
    ours = [each for each in events if each.name.startswith("aiopatterns.saga.")]
    assert [type(each).__name__ for each in ours] == ["SagaTurnedBack", "SagaEnded"]
    assert isinstance(ours[0], sagaevents.SagaTurnedBack)
    assert "fog" in ours[0].cause
