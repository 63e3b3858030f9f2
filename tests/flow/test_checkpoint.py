"""Fingerprints: equal for equal arguments, different for different ones, refused for objects.

And results that are kept in a backend: read back as they were, also by another process.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends import open_backend
from aiopatterns.core.clock import sleep
from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.errors import CodecError, DagError
from aiopatterns.flow.checkpoint import KvStore, ResultStore, result_key
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.task import Given, Live, Results

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Store:
    async def get(self, key, default):
        return default

    async def set(self, key, value):
        return None


def test_what_a_store_is():
    assert isinstance(Store(), ResultStore)
    assert not isinstance({}, ResultStore)


@given(st.dictionaries(st.text(min_size=1), PLAIN, max_size=4), PLAIN)
def test_equal_arguments_have_equal_keys(arguments, other):
    key = result_key("etl", "load", {k: Given(v) for k, v in arguments.items()}, {})
    again = {k: Given(arguments[k]) for k in reversed(list(arguments))}
    assert result_key("etl", "load", again, {}) == key
    assert key.startswith("etl:load:")
    assert result_key("etl", "load", {**again, "": Given(other)}, {}) != key


def test_a_result_stands_for_the_key_of_its_task():
    def key(of, *, several=False):
        return result_key("d", "t", {"x": Results(("a",), several=several)}, {"a": of})

    assert key("d:a:1") == key("d:a:1")
    assert key("d:a:1") != key("d:a:2")
    assert result_key("d", "t", {"x": Given(["d:a:1"])}, {}) != key("d:a:1")
    assert result_key("d", "t", {"x": Live()}, {}) != result_key("d", "t", {"x": Given(None)}, {})


def test_names_that_look_alike_side_by_side_have_keys_of_their_own():
    assert result_key("a:b", "c", {}, {}) != result_key("a", "b:c", {}, {})


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize("value", [object(), 2**200, lambda: 1, ENDLESS])
def test_objects_have_no_fingerprint(value):
    with pytest.raises(DagError, match="argument 'x' of task 't' has no fingerprint"):
        result_key("d", "t", {"x": Given(value)}, {})


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
@pytest.mark.parametrize("value", [None, 0, "text", [1, {"a": None}], {"b": [2.5]}])
async def test_results_in_a_backend_come_back_as_they_were(codec, value):
    async with open_backend("memory://") as backend:
        store = KvStore(backend.kv, codec)
        missing = object()
        assert await store.get("k", missing) is missing
        await store.set("k", value)
        assert await store.get("k", missing) == value
        assert await KvStore(backend.kv, codec, prefix="other:").get("k", missing) is missing
        assert await backend.kv.get("dag:k") == codec.encode(value)


async def test_results_are_kept_for_their_time():
    async with open_backend("memory://") as backend:
        await KvStore(backend.kv, JSON, ttl=0.02).set("k", 1)
        await KvStore(backend.kv, JSON, ttl=None, prefix="for ever:").set("k", 2)
        assert await KvStore(backend.kv, JSON).get("k", None) == 1
        while await backend.kv.get("dag:k") is not None:
            await sleep(0.01)
        assert await KvStore(backend.kv, JSON, prefix="for ever:").get("k", None) == 2


async def test_bad_input_of_a_store():
    async with open_backend("memory://") as backend:
        wrong: Any = "json"
        with pytest.raises(TypeError, match="codec must be a codec such as JSON"):
            KvStore(backend.kv, wrong)
        with pytest.raises(ValueError, match="ttl must be a finite number > 0, not 0"):
            KvStore(backend.kv, JSON, ttl=0)
        with pytest.raises(ValueError, match="prefix must be a non-empty string"):
            KvStore(backend.kv, JSON, prefix="")
        with pytest.raises(CodecError):
            await KvStore(backend.kv, JSON).set("k", object())
        await backend.kv.set("dag:bad", b"{")
        with pytest.raises(CodecError):
            await KvStore(backend.kv, JSON).get("bad", None)


def numbers(ran, *, fail):
    """Three tasks in a row; the last one fails if told so."""
    dag = Dag("numbers")

    @dag.task
    async def first(start: int) -> int:
        ran.append("first")
        return start + 1

    @dag.task
    async def second(first: int) -> list[int]:
        ran.append("second")
        return [first, 2 * first]

    @dag.task
    async def third(second: list[int]) -> int:
        ran.append("third")
        if fail:
            raise OSError
        return sum(second)

    return dag, third


async def test_a_run_goes_on_where_another_has_failed():
    async with open_backend("memory://") as backend:
        store = KvStore(backend.kv, JSON)
        ran: list[str] = []
        with pytest.raises(OSError):
            await numbers(ran, fail=True)[0].run(inputs={"start": 1}, store=store)
        dag, third = numbers(ran, fail=False)
        run = await dag.run(inputs={"start": 1}, store=store)
        assert run[third] == 6
        assert ran == ["first", "second", "third", "third"]


KILLED = """
import asyncio, os, signal, sys
from aiopatterns.backends import open_backend
from aiopatterns.core.codec import JSON
from aiopatterns.flow import Dag, KvStore

dag = Dag("numbers")

@dag.task
async def first(start: int) -> int:
    return start + 1

@dag.task
async def second(first: int) -> list[int]:
    return [first, 2 * first]

@dag.task
async def third(second: list[int]) -> int:
    os.kill(os.getpid(), signal.SIGKILL)

async def main() -> None:
    async with open_backend(sys.argv[1]) as backend:
        await dag.run(inputs={"start": 1}, store=KvStore(backend.kv, JSON))

asyncio.run(main())
"""


@pytest.mark.real
@pytest.mark.promise("backends-dag-resumes")
async def test_a_run_goes_on_where_a_killed_process_has_stopped(redis_url):
    command = [sys.executable, "-c", KILLED, redis_url]
    assert subprocess.run(command, check=False).returncode == -9
    ran: list[str] = []
    dag, third = numbers(ran, fail=False)
    async with open_backend(redis_url) as backend:
        run = await dag.run(inputs={"start": 1}, store=KvStore(backend.kv, JSON))
    assert run[third] == 6
    assert ran == ["third"]
