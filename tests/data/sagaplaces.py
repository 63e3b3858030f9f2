"""Every place in which sagas are kept, so that one test body runs in all of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from aiopatterns.data.sagajournal import SagaState
from aiopatterns.data.sagaredis import RedisSagaStore
from aiopatterns.data.sagasql import PostgresSagaStore, SqliteSagaStore
from aiopatterns.data.sagastore import KEEP, Filed, MemorySagaStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PLACES: Final = [
    "memory",
    "backend",
    pytest.param("sqlite", marks=pytest.mark.real),  # its clock is that of the host
    pytest.param("redis", marks=pytest.mark.real),
    pytest.param("postgres", marks=pytest.mark.real),
]


@asynccontextmanager
async def opened(request: Any, tmp_path: Path, *, keep: float = KEEP) -> AsyncIterator[Any]:
    """A store in the place that the test has as its parameter."""
    kind = request.param
    if kind == "memory":
        yield MemorySagaStore(keep=keep)
        return
    async with made(kind, request, tmp_path, keep) as store:
        yield store


def made(kind: str, request: Any, tmp_path: Path, keep: float) -> Any:
    if kind == "sqlite":
        return SqliteSagaStore(tmp_path / "sagas.db", keep=keep)
    if kind == "postgres":
        return PostgresSagaStore(request.getfixturevalue("postgres_dsn"), keep=keep)
    url = "memory://" if kind == "backend" else request.getfixturevalue("redis_url")
    return RedisSagaStore(url, keep=keep)


def filed(id: str = "1", *, owner: str = "a", revision: int = 0, **more: Any) -> Filed:
    """A record, as a run makes it."""
    values: dict[str, Any] = {
        "saga": "trip",
        "definition": "1-x",
        "state": SagaState.RUNNING,
        "fence": 1,
        "body": b"body",
    } | more
    return Filed(id=id, owner=owner, revision=revision, **values)
