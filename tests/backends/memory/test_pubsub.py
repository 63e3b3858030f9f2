from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.backends.records import Notice
from aiopatterns.core.errors import ClosedError
from aiopatterns.testing import Trial, cancel_everywhere


async def texts(notices, number: int) -> list[bytes]:
    return [(await anext(notices)).data for _ in range(number)]


async def test_whoever_listens_hears():
    async with MemoryBackend() as backend:
        pubsub = backend.pubsub
        assert await pubsub.publish("a", b"too early") == 0
        async with pubsub.subscribe("a", "b") as one, pubsub.subscribe("a") as other:
            assert await pubsub.publish("a", b"1") == 2
            assert await pubsub.publish("b", b"2") == 1
            assert await pubsub.publish("c", b"3") == 0
            assert [await anext(one), await anext(one)] == [Notice("a", b"1"), Notice("b", b"2")]
            assert await texts(other, 1) == [b"1"]
        assert await pubsub.publish("a", b"too late") == 0


@pytest.mark.parametrize(
    ("glob", "fits", "differs"),
    [
        ("*", ["", "a", "a\nb"], []),
        ("a*c", ["ac", "abc", "a*c"], ["acd", "bac", "AC"]),
        ("a?", ["ab", "a?", "a\n"], ["a", "abc"]),
        ("a\\*", ["a*"], ["ab", "a\\*"]),
        ("a\\?b", ["a?b"], ["acb"]),
        ("[ab]", ["[ab]"], ["a", "b"]),
        ("a\\[b", ["a[b"], ["ab"]),
        ("a\\\\", ["a\\"], ["a"]),
        ("a\\", ["a\\"], ["a"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a\\bc", ["abc"], ["a\\bc"]),
        ("!", ["!"], ["a"]),
        ("é*", ["é", "éa"], ["e", "è"]),
        ("??", ["é", "ab"], ["a", "éa"]),
    ],
)
async def test_patterns_are_globs(glob, fits, differs):
    async with MemoryBackend() as backend:
        async with backend.pubsub.subscribe(patterns=[glob]):
            for channel in filter(None, fits):
                assert await backend.pubsub.publish(channel, b"") == 1
            for channel in differs:
                assert await backend.pubsub.publish(channel, b"") == 0


async def test_a_hostile_pattern_is_answered_at_once():
    async with MemoryBackend() as backend:
        async with backend.pubsub.subscribe(patterns=["*a" * 200 + "b"]):
            assert await backend.pubsub.publish("a" * 1_000, b"") == 0


async def test_what_fits_several_times_arrives_once():
    async with MemoryBackend() as backend:
        pubsub = backend.pubsub
        async with pubsub.subscribe("a", "a", patterns=["a", "*"]) as notices:
            assert await pubsub.publish("a", b"1") == 1
            assert await pubsub.publish("b", b"2") == 1
            assert await texts(notices, 2) == [b"1", b"2"]


async def test_a_slow_reader_loses_the_oldest_and_hears_of_it():
    told = []
    async with MemoryBackend() as backend:
        pubsub = backend.pubsub
        subscription = pubsub.subscribe("a", capacity=2, on_gap=lambda: told.append(1))
        async with subscription as notices:
            for number in range(5):
                await pubsub.publish("a", b"%d" % number)
            assert (notices.gaps, told) == (1, [1])
            assert await texts(notices, 2) == [b"3", b"4"]
            await pubsub.publish("a", b"5")
            assert notices.gaps == 1
            for number in range(6, 9):
                await pubsub.publish("a", b"%d" % number)
            assert (notices.gaps, told) == (2, [1, 1])
            assert await texts(notices, 2) == [b"7", b"8"]


async def test_a_gap_needs_no_callback_and_a_bad_one_harms_nobody(caplog):
    def bad() -> None:
        raise RuntimeError("mine")

    async with MemoryBackend() as backend:
        pubsub = backend.pubsub
        async with (
            pubsub.subscribe("a", capacity=1) as one,
            pubsub.subscribe("a", capacity=1, on_gap=bad) as other,
        ):
            with caplog.at_level(logging.ERROR, "aiopatterns"):
                for number in range(2):
                    assert await pubsub.publish("a", b"%d" % number) == 2
            assert (one.gaps, other.gaps) == (1, 1)
            assert await texts(other, 1) == [b"1"]
    assert "on_gap of a subscription failed" in caplog.text
    assert "RuntimeError: mine" in caplog.text


async def test_readers_share_and_wait():
    got: list[bytes] = []

    async def read(notices) -> None:
        got.append((await anext(notices)).data)

    async with MemoryBackend() as backend, backend.pubsub.subscribe("a") as notices:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read, notices)
            await wait_all_tasks_blocked()
            for number in range(3):
                await backend.pubsub.publish("a", b"%d" % number)
    assert sorted(got) == [b"0", b"1", b"2"]


async def test_the_iteration_ends_with_the_block_or_the_backend():
    backend = MemoryBackend()
    async with backend:
        subscription = backend.pubsub.subscribe("a")
        async with subscription as notices:
            await backend.pubsub.publish("a", b"1")
        assert [each.data async for each in notices] == [b"1"]
        async with subscription as notices:
            with pytest.raises(RuntimeError, match="open already; enter it only once"):
                await notices.__aenter__()
    ended = anyio.Event()

    async def listen(notices) -> None:
        assert [each async for each in notices] == []
        ended.set()

    async with anyio.create_task_group() as tasks:
        await backend.__aenter__()
        async with backend.pubsub.subscribe("a", patterns=["b"]) as notices:
            tasks.start_soon(listen, notices)
            await wait_all_tasks_blocked()
            await backend.__aexit__(None, None, None)
            await ended.wait()
    async with backend:
        assert await backend.pubsub.publish("a", b"") == 0
    assert backend.pubsub._channels == {}
    assert backend.pubsub._patterns == {}


def test_a_cancelled_wait_loses_nothing():
    def scenario() -> Trial:
        backend = MemoryBackend()
        subscription = backend.pubsub.subscribe("a")
        got: list[bytes] = []

        async def publish() -> None:
            for number in range(3):
                await anyio.sleep(0.01)
                await backend.pubsub.publish("a", b"%d" % number)

        async def work() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish)
                while len(got) < 3:
                    got.append((await anext(subscription)).data)

        async def check() -> None:
            await subscription.__aexit__(None, None, None)
            got.extend([each.data async for each in subscription])
            assert got == [b"0", b"1", b"2"][: len(got)]
            await backend.__aexit__(None, None, None)

        async def whole() -> None:
            await backend.__aenter__()
            await subscription.__aenter__()
            await work()

        return Trial(whole(), check)

    cancel_everywhere(scenario, minimum=3)


async def test_bad_input_is_refused():
    pubsub: Any = MemoryBackend().pubsub
    with pytest.raises(ValueError, match="at least one of channels and patterns"):
        pubsub.subscribe()
    for kwargs, message in (
        ({"patterns": "ab"}, "patterns must be a collection of strings"),
        ({"patterns": [""]}, "patterns must be a non-empty string"),
        ({"capacity": 0}, "capacity must be a whole number >= 1"),
        ({"on_gap": 1}, "on_gap must be a function"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            pubsub.subscribe("a", **kwargs)
    with pytest.raises(TypeError, match="channels must be a non-empty string, not 1"):
        pubsub.subscribe(1)
    with pytest.raises(ValueError, match="channel must be a non-empty string"):
        await pubsub.publish("", b"")
    with pytest.raises(TypeError, match="data must be bytes"):
        await pubsub.publish("a", "b")


async def test_a_closed_backend_is_told_so():
    pubsub = MemoryBackend().pubsub
    with pytest.raises(ClosedError):
        await pubsub.publish("a", b"")
    with pytest.raises(ClosedError):
        await pubsub.subscribe("a").__aenter__()
