"""The barrier: empty, repeated and late compensations and actions."""

from __future__ import annotations

from itertools import product
from typing import Any

import anyio
import pytest

from aiopatterns.data.sagabarrier import SagaBarrier
from tests.backends.databases import KINDS, commit, database_of, rollback

pytestmark = pytest.mark.real


@pytest.fixture(params=KINDS)
async def database(request) -> Any:
    found = database_of(request, request.param)
    async with found.connect() as connection:
        await SagaBarrier(connection).create_tables()
        await commit(connection)
    return found


@pytest.mark.promise("data-saga-barrier")
async def test_any_order_of_calls_has_one_effect_or_none(database):
    async with database.connect() as connection:
        barrier: Any = SagaBarrier(connection)
        for number, calls in enumerate(product(["action", "compensate"], repeat=3)):
            effects = [op for op in calls if await barrier.enter(str(number), "pay", op)]
            wanted = ["action", "compensate"] if "compensate" in calls else ["action"]
            assert effects == (wanted if calls[0] == "action" else [])
        await commit(connection)


async def test_what_is_rolled_back_has_not_happened(database):
    async with database.connect() as connection:
        barrier: Any = SagaBarrier(connection)
        assert await barrier.enter("1", "pay", "action")
        await rollback(connection)
        assert not await barrier.enter("1", "pay", "compensate")
        await commit(connection)
        assert not await barrier.enter("1", "pay", "action")
        await rollback(connection)


async def test_steps_and_sagas_are_apart(database):
    async with database.connect() as connection:
        barrier: Any = SagaBarrier(connection)
        assert await barrier.enter("1", "pay", "action")
        assert await barrier.enter("1", "ship", "action")
        assert await barrier.enter("2", "pay", "action")
        await rollback(connection)


async def test_a_compensation_waits_for_the_action_that_is_under_way(request):
    database = database_of(request, "psycopg")
    found: list[bool] = []
    async with database.connect() as first, database.connect() as second:
        await SagaBarrier(first).create_tables()
        await commit(first)
        assert await SagaBarrier(first).enter("1", "pay", "action")

        async def undo() -> None:
            found.append(await SagaBarrier(second).enter("1", "pay", "compensate"))

        async with anyio.create_task_group() as group:
            group.start_soon(undo)
            await anyio.sleep(0.1)
            assert not found
            await commit(first)
        assert found == [True]


async def test_bad_input_is_refused(tmp_path, request):
    async with database_of(request, "sqlite3").connect() as connection:
        with pytest.raises(ValueError, match="table"):
            SagaBarrier(connection, table="a b")
        barrier: Any = SagaBarrier(connection)
        with pytest.raises(ValueError, match="op must be"):
            await barrier.enter("1", "pay", "undo")
        with pytest.raises(ValueError, match="id"):
            await barrier.enter("", "pay", "action")
        with pytest.raises(TypeError, match="step"):
            await barrier.enter("1", 7, "action")
    unfit: Any = object()
    with pytest.raises(TypeError):
        SagaBarrier(unfit)
