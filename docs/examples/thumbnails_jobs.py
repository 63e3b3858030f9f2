"""Thumbnails by a job queue: jobs, progress, events, figures, dead letters, and a polite client.

Pictures come from a gallery that allows so many requests a second and fails now and then. Each one
is made small by a job; a last job waits for all of them and puts them on one sheet. Thumbnails are
kept under keys of the backend for an hour, and jobs return the keys, not the pictures.

The same program runs in memory and on Redis, where workers may be other processes:

Run: python docs/examples/thumbnails_jobs.py [URL]      (memory:// by default, or redis://...)
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass

from aiopatterns import JobFailedError, Retry
from aiopatterns.backends import open_backend
from aiopatterns.core import Reject
from aiopatterns.jobs import Context, Handle, JobQueue, JobStatus, Unique, Worker
from aiopatterns.resilience import Constant, Rate, SharedRateLimit

URL = sys.argv[1] if len(sys.argv) > 1 else "memory://"
WIDTH, SMALL = 64, 16
PICTURES = [f"picture-{number:02d}" for number in range(12)]

backend = open_backend(URL)
jobs = JobQueue("thumbnails", backend)
polite = SharedRateLimit(Rate(500), backend, name="gallery")


@dataclass(frozen=True)
class Thumbnail:
    """What a job returns: where the picture is, and how large."""

    name: str
    key: str
    width: int


class Gallery:
    """Somebody else's server: grey pictures of 64 by 64, and a failure for every tenth request."""

    def __init__(self) -> None:
        self.requests = 0

    async def get(self, name: str) -> bytes:
        """Return a picture, a byte for each pixel."""
        await polite.acquire()  # over all processes
        self.requests += 1
        if self.requests % 10 == 0:
            raise ConnectionError("the gallery hangs up")
        if name not in PICTURES:
            raise Reject(f"no picture {name!r}")
        seed = int(name[-2:])
        return bytes((x * y + seed) % 256 for y in range(WIDTH) for x in range(WIDTH))


gallery = Gallery()


def shrink(picture: bytes) -> bytes:
    """Make a picture a quarter as wide: the mean of each 4 by 4 pixels."""
    step = WIDTH // SMALL
    return bytes(
        sum(
            picture[(y * step + dy) * WIDTH + x * step + dx]
            for dy in range(step)
            for dx in range(step)
        )
        // step**2
        for y in range(SMALL)
        for x in range(SMALL)
    )


@jobs.job(
    name="thumbs.make",
    retry=Retry(on=OSError, attempts=5, backoff=Constant(0.01)),
    unique=Unique("{name}"),
    timeout=10,
)
async def thumbnail(ctx: Context, name: str) -> Thumbnail:
    """Fetch a picture, make it small, keep it for an hour."""
    picture = await gallery.get(name)
    await ctx.progress(0.5)
    key = f"thumb:{name}"
    await backend.kv.set(key, shrink(picture), ttl=3600)
    return Thumbnail(name, key, SMALL)


@jobs.job(name="thumbs.sheet")
async def sheet(names: list[str]) -> str:
    """Put thumbnails below each other; all of them are there, for this job waits for theirs."""
    found = await backend.kv.get_many([f"thumb:{name}" for name in names])
    await backend.kv.set("thumb:sheet", b"".join(found.values()), ttl=3600)
    return "thumb:sheet"


async def look_on(happened: Counter[str]) -> None:
    """Count what is told, until somebody stops it."""
    async with jobs.events() as events:
        async for event in events:
            happened[event.kind] += 1


async def reason(handle: Handle[Thumbnail]) -> str:
    """Return why a job has failed for good."""
    try:
        await handle.result(timeout=20)
    except JobFailedError as error:
        return f"{error.type}: {error.message}"
    return "it has not"


async def main() -> None:
    """Enqueue, wait, look at the results."""
    happened: Counter[str] = Counter()
    async with jobs, Worker(jobs, concurrency=4), asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look_on(happened))
        await asyncio.sleep(0.05)

        handles = await jobs.enqueue_many([thumbnail.job(name) for name in PICTURES])
        on_sheet = await sheet.using(after=handles, priority=9).enqueue(PICTURES)
        missing = await thumbnail.enqueue("picture-99")

        for handle, name in zip(handles, PICTURES, strict=True):
            made = await handle.result(timeout=20)
            assert made == Thumbnail(name, f"thumb:{name}", SMALL)
        key = await on_sheet.result(timeout=20)
        pixels = await backend.kv.get(key) or b""
        assert len(pixels) == len(PICTURES) * SMALL**2
        assert pixels[: SMALL**2] == shrink(
            bytes(x * y % 256 for y in range(64) for x in range(64))
        )

        failure = await reason(missing)
        assert failure == "Reject: no picture 'picture-99'"
        assert await missing.status() is JobStatus.DEAD
        (letter,) = await jobs.dead_letters()
        print(f"dead: {letter.name}{tuple(letter.args)}: {letter.error.message}")

        figures = await jobs.statistics()
        assert (figures.queued, figures.running, figures.dead) == (0, 0, 1)
        assert await jobs.purge() == 1
        await asyncio.sleep(0.05)
        looking.cancel()
    assert happened["done"] == len(PICTURES) + 1
    assert happened["dead"] == 1
    assert happened["retrying"] >= 1
    print(f"{len(PICTURES)} thumbnails and a sheet of {len(pixels)} pixels in {backend.url}")
    print(", ".join(f"{count} {kind}" for kind, count in sorted(happened.items())))


if __name__ == "__main__":
    asyncio.run(main())
