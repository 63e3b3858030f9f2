from __future__ import annotations

import json
from contextlib import aclosing
from typing import cast

import anyio
import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.publishing import DIRECTORY, Published
from aiopatterns.backends.records import Notice as Message
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.dashboard.fleet import Fleet
from aiopatterns.dashboard.live import Viewer, Watch
from aiopatterns.dashboard.notices import LOG, Notice
from aiopatterns.dashboard.queues import Queues
from aiopatterns.testing import simulate


class Trouble:
    """A fleet that can be away, and counts the looks."""

    def __init__(self, backend):
        self.fleet = Fleet(backend, Queues(backend), actions=False)
        self.error: Exception | None = None
        self.looks = 0

    async def look(self):
        self.looks += 1
        if self.error is not None:
            raise self.error
        return await self.fleet.look()


def watching(seconds, during):
    """Run a watch over memory in virtual time; what ``during`` returns is returned."""

    async def run():
        backend = open_backend("memory://")
        async with backend:
            fleet = Trouble(backend)
            watch = Watch(cast("Fleet", fleet), backend.pubsub)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.run)
                result = await during(watch, fleet, backend)
                tasks.cancel_scope.cancel()
            return result

    return simulate(run)


async def read(watch, until, after=0):
    """What a viewer gets until a time, as (event, id, data)."""
    found = []
    async with aclosing(watch.stream(after)) as chunks:
        async for chunk in chunks:
            for block in chunk.decode().split("\n\n"):
                lines = dict(each.split(": ", 1) for each in block.splitlines() if ": " in each)
                if "event" in lines:
                    found.append((lines["event"], int(lines["id"]), json.loads(lines["data"])))
            if monotonic() >= until:
                return found
    return found


@pytest.mark.promise("dashboard-idle")
def test_a_look_a_second_for_all_and_none_without_viewers():
    async def during(watch, fleet, backend):
        await sleep(10)
        assert fleet.looks == 0
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(read, watch, 15.0)
            await sleep(2)
            assert watch.viewers == 5
        assert watch.viewers == 0
        looks = fleet.looks
        await sleep(10)
        return looks, fleet.looks

    looks, later = watching(30, during)
    assert 5 <= looks <= 6
    assert later <= looks + 1


def test_a_viewer_gets_overviews_with_growing_ids():
    async def during(watch, fleet, backend):
        return await read(watch, 3.0)

    found = watching(5, during)
    assert [kind for kind, _, _ in found] == ["overview"] * len(found)
    ids = [number for _, number, _ in found]
    assert ids == sorted(set(ids))
    assert found[0][2]["backend"] == "memory://"


def test_a_slow_viewer_gets_the_newest_only():
    async def during(watch, fleet, backend):
        async with aclosing(watch.stream()) as chunks:
            assert (await anext(chunks)).startswith(b"retry: ")
            await sleep(5.5)
            late = await anext(chunks)
        return late.count(b"event: overview"), fleet.looks

    shown, looks = watching(10, during)
    assert shown == 1
    assert looks == 6


def test_lines_are_kept_for_who_comes_later_and_not_sent_twice():
    async def during(watch, fleet, backend):
        for number in range(600):
            watch.note(Notice(at=0, level="info", event="e", text=str(number), source="s"))
        first = [each for each in await read(watch, 0.5) if each[0] == "log"]
        watch.note(Notice(at=0, level="info", event="e", text="new", source="s"))
        return first, await read(watch, 3.0, after=first[-1][1])

    first, later = watching(5, during)
    assert [each[2]["text"] for each in first] == [str(number) for number in range(100, 600)]
    assert [each[2]["text"] for each in later if each[0] == "log"] == ["new"]


def test_lines_of_a_slow_viewer_are_bounded():
    viewer = Viewer()
    for number in range(2_000):
        viewer.tell(b"%d\n\n" % number)
    assert len(viewer._lines) == 500


def test_silence_is_broken_by_a_heartbeat():
    async def quiet():
        viewer = Viewer()
        began = monotonic()
        return await viewer.next(), monotonic() - began

    assert simulate(quiet) == (b": still here\n\n", 15.0)


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (BackendUnavailableError("away: redis://u:geheim@h"), "backend.away"),
        (BackendError("full: redis://u:geheim@h"), "backend.refused"),
        (KeyError("redis://u:geheim@h"), "backend.refused"),
    ],
)
def test_an_outage_is_told_once_and_ends_by_itself(error, event):
    async def during(watch, fleet, backend):
        async def trouble():
            await sleep(2.5)
            fleet.error = error
            await sleep(3)
            fleet.error = None

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trouble)
            return await read(watch, 8.0)

    found = watching(10, during)
    lines = [data["event"] for kind, _, data in found if kind == "log"]
    assert lines == [event, "backend.recovered"]
    outages = [data["error"] for kind, _, data in found if kind == "outage"]
    assert len(outages) == 3
    assert all("u:***@h" in each for each in outages)
    assert found[-1][0] == "overview"


def test_a_close_ends_all_streams():
    async def during(watch, fleet, backend):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, watch, 1e9)
            tasks.start_soon(read, watch, 1e9)
            await sleep(1.5)
            watch.close()
        return watch.viewers

    assert watching(5, during) == 0


def test_events_that_processes_forward_become_lines():
    async def during(watch, fleet, backend):
        async def forward():
            await sleep(0.5)
            line = Notice(at=1, level="warning", event="circuit.opened", text="t", source="h 1")
            for data in (b"no line", b"{}", JSON.encode(line), b'{"text": "%s"}' % (b"x" * 10_000)):
                await backend.pubsub.publish_many([Message(LOG, data)])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forward)
            return await read(watch, 3.0)

    found = watching(5, during)
    (line,) = [data for kind, _, data in found if kind == "log"]
    assert line["event"] == "circuit.opened"


def test_forwarded_events_come_again_after_an_outage_of_the_channel():
    class Broken:
        def __init__(self, pubsub):
            self.pubsub, self.failures = pubsub, 2

        def subscribe(self, channel):
            if self.failures:
                self.failures -= 1
                raise BackendUnavailableError("away")
            return self.pubsub.subscribe(channel)

    async def during(watch, fleet, backend):
        watch._pubsub = Broken(backend.pubsub)

        async def forward():
            await sleep(3.5)
            line = Notice(at=1, level="info", event="e", text="t", source="s")
            await backend.pubsub.publish(LOG, JSON.encode(line))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forward)
            return await read(watch, 5.0)

    assert [data["event"] for kind, _, data in watching(8, during) if kind == "log"] == ["e"]


def test_a_question_takes_the_look_of_the_last_second():
    async def during(watch, fleet, backend):
        first = await watch.overview()
        assert await watch.overview() is first
        await sleep(1.0)
        assert await watch.overview() is not first
        watch.forget()
        await watch.overview()
        return fleet.looks, len(watch.history)

    assert watching(3, during) == (3, 3)


def test_actions_are_lines():
    async def during(watch, fleet, backend):
        watch.acted("requeue", "mail", 3)
        watch.acted("pause", "mail", 0)
        return [json.loads(line.decode().split("data: ")[1]) for _, line in watch._lines]

    found = watching(1, during)
    assert [each["text"] for each in found] == ["requeue of 3 in queue mail", "pause of queue mail"]
    assert {each["source"] for each in found} == {"dashboard"}


def test_what_has_changed_between_two_looks_is_a_line():
    async def during(watch, fleet, backend):
        async def join():
            await sleep(1.5)
            who = Published(kind="worker", name="w", host="h", pid=1, number="1", started_at=0.0)
            await backend.directory(DIRECTORY).put("w", MSGPACK.encode(who), ttl=60)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join)
            return await read(watch, 4.0)

    found = watching(8, during)
    assert [data["event"] for kind, _, data in found if kind == "log"] == ["worker.joined"]
