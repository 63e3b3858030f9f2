"""Keys of a backend as a participant: locks in cells, one record that decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.core.errors import ConflictError
from aiopatterns.data import Fate, RedisParticipant, Vote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.leaves("*2pc:keys:v:*")

KINDS = ["memory", pytest.param("redis", marks=pytest.mark.real)]


@pytest.fixture(params=KINDS)
async def a(request) -> AsyncIterator[RedisParticipant]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    async with open_backend(url) as backend:
        yield RedisParticipant("keys", backend)


def another(a: RedisParticipant) -> RedisParticipant:
    """Return the same participant as another process has it."""
    return RedisParticipant("keys", a._backend)


async def put(a: RedisParticipant, key: str, value: bytes | None, *, gid: str = "first") -> None:
    await a.branch(gid).execute(key, value)
    assert await a.commit_alone(gid)


async def test_nobody_sees_what_is_not_committed(a):
    branch = a.branch("g")
    assert await branch.get("x") is None
    await branch.execute("x", b"1")
    assert await branch.get("x") == b"1"
    assert await a.prepare("g") is Vote.YES
    assert await a.get("x") is None
    assert await a.outcome("g") is Fate.PREPARED
    ((gid, age),) = await another(a).in_doubt()
    assert (gid, age >= 0) == ("g", True)
    assert await another(a).commit("g")
    assert await a.get("x") == b"1"
    assert not await a.commit("g")
    assert await a.outcome("g") is Fate.COMMITTED
    assert not await a.rollback("g"), "it is too late"
    await a.forget(["g"])
    assert await a.outcome("g") is Fate.UNKNOWN
    assert await a.in_doubt() == []


async def test_a_promise_is_rolled_back_by_another(a):
    await put(a, "x", b"1")
    branch = a.branch("g")
    await branch.execute("x", b"2")
    assert await a.prepare("g") is Vote.YES
    assert await another(a).rollback("g")
    assert not await another(a).rollback("g")
    assert not await another(a).commit("g")
    assert await a.get("x") == b"1"
    await put(a, "x", None, gid="h")
    assert await a.get("x") is None


async def test_work_that_was_not_promised_needs_no_backend(a):
    await a.branch("g").execute("x", b"1")
    assert await a.rollback("g")
    assert await a.outcome("g") is Fate.UNKNOWN


async def test_what_was_only_read_is_checked(a):
    await put(a, "x", b"1")
    branch = a.branch("g")
    assert await branch.get("x") == b"1"
    assert await branch.get("x") == b"1"
    assert await a.prepare("g") is Vote.READ_ONLY
    branch = a.branch("g")
    await branch.get("x")
    assert await a.commit_alone("g")
    branch = a.branch("g")
    await branch.get("x")
    await put(a, "x", b"2", gid="h")
    with pytest.raises(ConflictError, match="'x' was changed by another"):
        await a.prepare("g")


async def test_what_was_read_and_is_written_is_checked(a):
    branch = a.branch("g")
    assert await branch.get("x") is None
    await branch.execute("x", b"2")
    await put(a, "x", b"1", gid="h")
    with pytest.raises(ConflictError, match="'x' was changed by another"):
        await a.prepare("g")
    assert await a.rollback("g")
    assert await a.in_doubt() == []


async def test_a_lock_of_another_is_a_no(a):
    await a.branch("g").execute("x", b"1")
    assert await a.prepare("g") is Vote.YES
    other = another(a)
    await other.branch("h").execute("x", b"2")
    with pytest.raises(ConflictError, match="'x' is locked by transaction g"):
        await other.prepare("h")
    assert await other.rollback("h")
    assert await a.commit("g")
    assert await a.get("x") == b"1"


async def test_a_lock_that_comes_in_between_is_a_no(a, monkeypatch):
    await a.branch("g").execute("x", b"1")
    cells = RedisParticipant._cells

    async def slow(self: Any, keys: Any) -> Any:
        found = await cells(self, keys)
        monkeypatch.undo()
        await put(another(a), "x", b"2", gid="h")
        return found

    monkeypatch.setattr(RedisParticipant, "_cells", slow)
    with pytest.raises(ConflictError, match="locked by another one meanwhile"):
        await a.prepare("g")
    assert await a.rollback("g")
    assert await a.get("x") == b"2"


@pytest.mark.parametrize("decided", ["commit", "rollback"])
async def test_a_lock_that_was_left_follows_the_record(a, decided, monkeypatch):
    """Its process died when the record was written, and the cells were not."""
    await put(a, "x", b"1")
    await a.branch("g").execute("x", b"2")
    await a.prepare("g")

    async def died(*_: Any) -> None:
        raise LookupError

    with monkeypatch.context() as patch:
        patch.setattr(RedisParticipant, "_release", died)
        with pytest.raises(LookupError):
            await getattr(another(a), decided)("g")
    value = b"2" if decided == "commit" else b"1"
    assert await a.get("x") == value
    branch = a.branch("h")
    assert await branch.get("x") == value
    await branch.execute("x", b"3")
    assert await a.commit_alone("h"), "it has freed the lock"
    assert await a.get("x") == b"3"
    if decided == "commit":
        assert not await a.commit("g"), "the second time"
    else:
        assert not await a.rollback("g")
    assert await a.get("x") == b"3"
    assert await a.in_doubt() == []


async def test_a_lock_whose_record_is_lost_is_free(a):
    await a.branch("g").execute("x", b"2")
    await a.prepare("g")
    await a.forget(["g"])
    assert await a.get("x") is None
    assert len(await a.in_doubt()) == 1, "the index still names it"
    await put(a, "x", b"3", gid="h")
    assert await a.get("x") == b"3"
    assert not await a.rollback("g")
    assert await a.in_doubt() == []


async def test_a_promise_that_is_late_is_refused(a):
    assert not await another(a).rollback("g")
    await a.branch("g").execute("x", b"1")
    with pytest.raises(ConflictError, match="was rolled back before it was promised"):
        await a.prepare("g")
    assert not await a.rollback("g")
    assert await a.in_doubt() == []


async def test_a_rollback_in_the_middle_of_a_promise(a, monkeypatch):
    await a.branch("g").execute("x", b"1")
    lock = RedisParticipant._lock

    async def slow(self: Any, gid: str, branch: Any) -> None:
        assert await a.outcome("g") is Fate.PREPARED
        assert not await another(a).commit("g"), "it is not promised yet"
        await lock(self, gid, branch)
        assert await another(a).rollback("g")

    monkeypatch.setattr(RedisParticipant, "_lock", slow)
    with pytest.raises(ConflictError, match="was rolled back while it was promised"):
        await a.prepare("g")
    assert await a.get("x") is None


async def test_two_that_roll_back_at_once(a, monkeypatch):
    await a.branch("g").execute("x", b"1")
    await a.prepare("g")
    step = RedisParticipant._step

    async def raced(self: Any, *args: Any, **more: Any) -> bool:
        monkeypatch.undo()
        assert await another(a).rollback("g")
        return await step(self, *args, **more)

    monkeypatch.setattr(RedisParticipant, "_step", raced)
    assert not await another(a).rollback("g"), "somebody was faster"
    assert await a.get("x") is None


async def test_bad_input_is_refused(a):
    unfit: Any = 7
    branch = a.branch("g")
    with pytest.raises(TypeError, match="value"):
        await branch.execute("x", unfit)
    with pytest.raises(ValueError, match="key"):
        await branch.execute("", b"")
    with pytest.raises(ValueError, match="key"):
        await branch.get("")
    with pytest.raises(ValueError, match="name"):
        RedisParticipant("no name", "memory://")
    assert repr(RedisParticipant("keys", "memory://")).startswith("RedisParticipant('keys', ")
