"""Many jobs at once, by ids and by filter, over pages and partitions."""

from __future__ import annotations

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.queue import NewJob, Settled, Turn
from aiopatterns.core.codec import Header
from aiopatterns.jobs.bulk import Bulk, JobFilter
from aiopatterns.jobs.desk import Desk
from aiopatterns.jobs.envelope import Envelope, Envelopes, ErrorRecord
from aiopatterns.jobs.handle import Handle, JobStatus, Origin

# Jobs and dead letters stay on purpose.
pytestmark = pytest.mark.leaves("{ap:q:*")
ENVELOPES = Envelopes()


def new(job_id, name="f", **given):
    body = ENVELOPES.encode(Envelope(name, [job_id], {}, 0.0, Header()))
    return NewJob(job_id, body, **given)


def bulk(backend, partitions=1):
    stores = tuple(backend.queue(f"q{each}") for each in range(partitions))
    return Bulk(Desk(stores, (), 0.0), ENVELOPES), stores


def nobody() -> Desk:
    raise NotImplementedError


async def kill(store, count):
    """Make dead letters of the next ``count`` jobs."""
    number = 0
    while count:
        number += 1
        turned = await store.step(Turn("w", number, 60, free=min(count, 500)))
        error = ENVELOPES.encode_error(ErrorRecord("E", "m"))
        dead = [Settled(each.id, "dead", error) for each in turned.claimed]
        number += 1
        await store.step(Turn("w", number, 60, dead))
        count -= len(dead)


async def test_cancel_by_ids_handles_and_filter(backend):
    async with backend:
        many, (store,) = bulk(backend)
        await store.enqueue([new("a"), new("b", "g"), new("c", delay=60), new("d", "g", delay=60)])
        await store.enqueue([new("e", "g", after=("d",)), new("x"), new("y"), new("z")])
        handle = Handle[None](Origin("q", ENVELOPES, nobody), "x", partition=0)
        assert await many.cancel([handle, "nobody"]) == 1
        assert await many.cancel(["y"]) == 1
        assert await many.cancel({"z"}) == 1
        assert await many.cancel(JobFilter(name="g", state=JobStatus.QUEUED)) == 1
        assert (await store.states(["b"]))["b"] != "queued"
        assert await many.cancel(JobFilter(name="nobody")) == 0
        assert await many.cancel(JobFilter(state=JobStatus.DEAD)) == 0
        await store.step(Turn("w", 1, 60, free=1))
        assert await many.cancel(JobFilter(state=JobStatus.RUNNING)) == 1
        assert await many.cancel(JobFilter(name="g")) == 2
        assert await many.cancel(JobFilter()) == 2
        counts = await store.counts()
        assert counts[:4] == (0, 0, 0, 1)


async def test_a_filter_reads_all_pages(backend):
    async with backend:
        many, (store,) = bulk(backend)
        for start in range(0, 1_200, 400):
            await store.enqueue([new(f"{n}", "fg"[n % 2]) for n in range(start, start + 400)])
        assert await many.cancel(JobFilter(name="g")) == 600
        assert await many.cancel(JobFilter()) == 600
        assert (await store.counts()).queued == 0


async def test_dead_letters_and_requeue(backend):
    async with backend:
        many, (store,) = bulk(backend)
        await store.enqueue([new(f"{n}", "fg"[n % 2]) for n in range(6)])
        await kill(store, 6)
        letters = await many.dead_letters(4)
        assert len(letters) == 4
        assert {(each.name, each.args[0], each.error.type) for each in letters} <= {
            ("fg"[n % 2], f"{n}", "E") for n in range(6)
        }
        assert len(await many.dead_letters(1_000)) == 6
        assert await many.requeue(JobFilter(state=JobStatus.QUEUED)) == 0
        assert await many.requeue(["0", "nobody"]) == 1
        assert await many.requeue(JobFilter(name="g")) == 3
        assert await many.requeue(JobFilter()) == 2
        assert await many.dead_letters(10) == []


async def test_more_dead_letters_than_a_page_holds(backend):
    async with backend:
        many, (store,) = bulk(backend)
        for start in range(0, 700, 350):
            await store.enqueue([new(f"{n}") for n in range(start, start + 350)])
        await kill(store, 700)
        assert len(await many.dead_letters(600)) == 600
        assert len(await many.dead_letters(500)) == 500
        assert await many.requeue(JobFilter()) == 700


async def test_partitions_are_all_meant(backend):
    async with backend:
        many, stores = bulk(backend, 3)
        for number, store in enumerate(stores):
            await store.enqueue([new("0" * 31 + f"{number}-{number}"), new(f"mine{number}")])
        assert await many.cancel(["0" * 31 + "1-1", "mine2"]) == 2
        assert await many.cancel(JobFilter()) == 4
        for store in stores:
            await store.enqueue([new(f"dead of {store.name}")])
            await kill(store, 1)
        assert len(await many.dead_letters(2)) == 2
        letters = await many.dead_letters(100)
        assert len(letters) == 3
        assert [each.died_at for each in letters] == sorted(
            (each.died_at for each in letters), reverse=True
        )
        assert await many.requeue(JobFilter(name="f")) == 3


async def test_a_job_that_nobody_can_read_fits_no_name(backend):
    async with backend:
        many, (store,) = bulk(backend)
        await store.enqueue([NewJob("bad", b"nonsense")])
        assert await many.cancel(JobFilter(name="f")) == 0
        assert await many.cancel(JobFilter()) == 1


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("id", TypeError, "jobs must be a collection of handles or ids, or a JobFilter, not 'id'"),
        (7, TypeError, "jobs must be a collection of handles or ids"),
        (None, TypeError, "jobs must be a collection of handles or ids"),
        ([7], TypeError, "jobs must be a non-empty string, not 7"),
        ([""], ValueError, "jobs must be a non-empty string"),
    ],
)
async def test_bad_input(which, error, message):
    async with open_backend("memory://") as backend:
        many, _ = bulk(backend)
        for operation in (many.cancel, many.requeue):
            with pytest.raises(error, match=message):
                await operation(which)
        with pytest.raises(ValueError, match="limit must be a whole number >= 1"):
            await many.dead_letters(0)


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"name": ""}, ValueError, "name must be a non-empty string"),
        ({"state": JobStatus.DONE}, ValueError, "state must be one of"),
        ({"state": "queued"}, ValueError, "state must be one of"),
    ],
)
def test_bad_filters(given, error, message):
    with pytest.raises(error, match=message):
        JobFilter(**given)
