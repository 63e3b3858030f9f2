from __future__ import annotations

from typing import Any

from aiopatterns.backends.opening import open_backend
from aiopatterns.core.telemetry import listen
from aiopatterns.dashboard.actions import Order, act
from aiopatterns.dashboard.events import DashboardActed
from aiopatterns.dashboard.queues import Queues


async def test_an_action_is_an_event_of_the_process():
    heard: list[Any] = []
    async with open_backend("memory://") as backend:
        (queue,) = await Queues(backend, ["mail"]).meet({})
        with listen(heard.append):
            await act("pause", Order("mail"), queue)
        await act("resume", Order("mail"), queue)
    assert heard == [DashboardActed(action="pause", queue="mail", jobs=0)]
    assert heard[0].name == "aiopatterns.dashboard.acted"
    assert heard[0].level == "warning"
