"""A distributed search: one question to many shards at once, and an answer from those in time.

Each shard is a server of its own on loopback with a part of Python's language reference in an
inverted index. One of them is slow today: the search goes without it and says so.

Run: python docs/examples/search.py WORD...
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, TypeAlias

from aiohttp import ClientSession, web

from aiopatterns import QuorumError, scatter_gather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

Hits: TypeAlias = "list[tuple[int, str]]"
SHARDS = 4


def index_of(names: Iterable[str]) -> dict[str, Counter[str]]:
    """Word -> how often it stands in which topic."""
    index: dict[str, Counter[str]] = {}
    for name in names:
        for word in re.findall(r"[a-z]+", topics[name].lower()):
            index.setdefault(word, Counter())[name] += 1
    return index


@asynccontextmanager
async def shard(number: int, delay: float) -> AsyncIterator[str]:
    """One shard: a server that knows a part of the topics."""
    index = index_of(sorted(topics)[number::SHARDS])

    async def find(request: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        return web.json_response(index.get(request.query["word"], {}))

    app = web.Application()
    app.router.add_get("/find", find)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/find"
    finally:
        await runner.cleanup()


def best(values: Mapping[str, dict[str, int]]) -> Hits:
    """Merge what the shards found, the most frequent first."""
    hits = [(count, name) for found in values.values() for name, count in found.items()]
    return sorted(hits, key=lambda hit: (-hit[0], hit[1]))


async def main(word: str) -> None:
    """Ask all shards; be content with three of four."""
    async with AsyncExitStack() as stack:
        delays = [0.0, 0.0, 1.0, 0.0]
        urls = [await stack.enter_async_context(shard(*each)) for each in enumerate(delays)]
        session = await stack.enter_async_context(ClientSession(raise_for_status=True))

        async def ask(url: str) -> dict[str, int]:
            async with session.get(url, params={"word": word}) as response:
                found: dict[str, int] = await response.json()
                return found

        calls = {f"shard-{number}": partial(ask, url) for number, url in enumerate(urls)}
        got = await scatter_gather(calls, need=3, timeout=0.5, merge=best)
        try:
            await scatter_gather(calls, need=4, timeout=0.1)
        except QuorumError as error:
            print(f"with all four needed: {error}")

    assert list(got.missing) == ["shard-2"]
    assert not got.complete
    assert got.merged is not None
    expected = best({"all": dict(Counter(_expected(word)))})
    assert got.merged == [hit for hit in expected if hit[1] not in sorted(topics)[2::SHARDS]]
    print(f"{word!r}: {len(got.merged)} topics in {got.elapsed:.2f} s, without {got.missing}")
    for count, name in got.merged[:5]:
        print(f"  {count:>4}  {name}")


def _expected(word: str) -> dict[str, int]:
    return dict(index_of(topics).get(word, {}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "yield"))
