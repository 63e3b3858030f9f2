"""Idempotency in a database: effect and outcome come and go together."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from aiopatterns.core.errors import CodecError, ConflictError
from aiopatterns.data.sqlidempotency import SqlIdempotent
from tests.backends.databases import commit, database_of, rollback

pytestmark = pytest.mark.real


@pytest.fixture(params=["sqlite3", "alchemy-sqlite", "psycopg"])
async def database(request) -> Any:
    found = database_of(request, request.param)
    async with found.connect() as connection:
        await SqlIdempotent(connection).create_tables()
        await commit(connection)
    return found


async def charge(log: list[str], receipt: Any = "paid") -> Any:
    log.append("charge")
    return receipt


@pytest.mark.promise("data-sql-idempotency")
async def test_a_key_runs_once_and_its_outcome_is_the_answer(database):
    log: list[str] = []
    async with database.connect() as connection:
        for _ in range(3):
            once = SqlIdempotent(connection)
            receipt = {"paid": 5, "by": ["card"]}
            assert await once.run("k", partial(charge, log, receipt)) == receipt
            await commit(connection)
        assert (
            await SqlIdempotent(connection, name="other").run("k", partial(charge, log)) == "paid"
        )
        await rollback(connection)
    assert log == ["charge"] * 2


async def test_what_is_rolled_back_has_not_happened(database):
    log: list[str] = []

    async def fail() -> None:
        log.append("fail")
        raise ValueError("no money")

    async with database.connect() as connection:
        once = SqlIdempotent(connection)
        with pytest.raises(ValueError, match="no money"):
            await once.run("k", fail)
        await rollback(connection)
        await once.run("k", partial(charge, log))
        await rollback(connection)
        await once.run("k", partial(charge, log))
        await commit(connection)
    assert log == ["fail", "charge", "charge"]


async def test_another_payload_is_refused(database):
    log: list[str] = []
    async with database.connect() as connection:
        once = SqlIdempotent(connection)
        await once.run("k", partial(charge, log), payload={"a": 1, "b": 2})
        await once.run("k", partial(charge, log), payload={"b": 2, "a": 1})
        with pytest.raises(ConflictError, match="another payload") as caught:
            await once.run("k", partial(charge, log), payload={"a": 2})
        assert caught.value.key == "k"
        with pytest.raises(CodecError, match="payload"):
            await once.run("k", partial(charge, log), payload=object())
        await commit(connection)
    assert log == ["charge"]


async def test_a_key_that_has_begun_and_not_ended_is_refused(database):
    async with database.connect() as connection:
        once: Any = SqlIdempotent(connection)

        async def itself() -> Any:
            return await once.run("k", itself)

        with pytest.raises(RuntimeError, match="begun and not ended"):
            await once.run("k", itself)
        await rollback(connection)


async def test_outcomes_are_forgotten_after_their_time(database):
    log: list[str] = []
    async with database.connect() as connection:
        short = SqlIdempotent(connection, ttl=0.05)
        await short.run("k", partial(charge, log), payload=1)
        await short.run("gone", partial(charge, log))
        await commit(connection)
        await anyio.sleep(0.2)
        assert await short.run("k", partial(charge, log), payload=2) == "paid"
        assert await short.purge() == 1
        await commit(connection)
        assert await SqlIdempotent(connection).run("k", partial(charge, log), payload=2) == "paid"
        await rollback(connection)
    assert log == ["charge"] * 3


@pytest.mark.parametrize("ends", [commit, rollback])
async def test_of_two_at_once_one_waits_for_the_other(request, ends):
    database = database_of(request, "psycopg")
    log: list[str] = []
    async with database.connect() as first, database.connect() as second:
        await SqlIdempotent(first).create_tables()
        await commit(first)
        await SqlIdempotent(first).run("k", partial(charge, log))

        async def again() -> None:
            assert await SqlIdempotent(second).run("k", partial(charge, log)) == "paid"

        async with anyio.create_task_group() as group:
            group.start_soon(again)
            await anyio.sleep(0.1)
            assert log == ["charge"]
            await ends(first)
    assert len(log) == (1 if ends is commit else 2)


async def test_a_stored_outcome_comes_back_as_its_type(request):
    async with database_of(request, "sqlite3").connect() as connection:
        once = SqlIdempotent(connection)
        await once.create_tables()
        for _ in range(2):
            assert await once.run("k", partial(charge, [], (1, 2)), returns=tuple[int, int]) == (
                1,
                2,
            )
        with pytest.raises(CodecError):
            await once.run("k", partial(charge, []), returns=str)
        with pytest.raises(CodecError):
            await once.run("other", partial(charge, [], object()))


async def test_bad_input_is_refused(request):
    async with database_of(request, "sqlite3").connect() as connection:
        for options, error in (
            ({"table": "a b"}, ValueError),
            ({"name": ""}, ValueError),
            ({"ttl": 0}, ValueError),
            ({"ttl": "1"}, TypeError),
        ):
            with pytest.raises(error, match=next(iter(options))):
                SqlIdempotent(connection, **options)
        once: Any = SqlIdempotent(connection)
        with pytest.raises(ValueError, match="key"):
            await once.run("", charge)
        with pytest.raises(TypeError, match="key"):
            await once.run(7, charge)
        with pytest.raises(TypeError, match="fn"):
            await once.run("k", 7)
