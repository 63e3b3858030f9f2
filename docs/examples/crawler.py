"""A web crawler with a depth limit, against a real site: Python's own pydoc pages on loopback.

Pages of one depth are fetched together, never more than ``LIMIT`` at once, with a timeout and a
retry for each; a page is fetched once, however many pages link to it. Links that lead nowhere are
counted, not fatal.

Run: python docs/examples/crawler.py [DEPTH]
"""

from __future__ import annotations

import asyncio
import pydoc
import re
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urldefrag, urljoin

from aiohttp import ClientError, ClientResponseError, ClientSession, web

from aiopatterns import Ok, Retry, stream_map
from aiopatterns.resilience import Constant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SITE = [
    "json",
    "json.decoder",
    "json.encoder",
    "json.scanner",
    "colorsys",
    "textwrap",
    "statistics",
]
LIMIT = 8


@dataclass
class Crawl:
    """What was found."""

    pages: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


async def crawl(start: str, depth: int) -> Crawl:
    """Visit ``start`` and all that is at most ``depth`` links away from it."""
    found, seen, frontier = Crawl(), {start}, [start]
    async with ClientSession(raise_for_status=True) as session:

        async def links_of(url: str) -> tuple[str, int, list[str]]:
            async with session.get(url) as response:
                text = await response.text()
            links = [
                urldefrag(urljoin(url, each)).url for each in re.findall(r'href="(.*?)"', text)
            ]
            return url, len(text), [each for each in links if each.startswith(start)]

        again = Retry(on=_may_pass, attempts=3, backoff=Constant(0.05))
        for _ in range(depth + 1):
            reached: dict[str, None] = {}
            async with stream_map(
                links_of,
                frontier,
                limit=LIMIT,
                errors="collect",
                retry=again,
                timeout=5,
                ordered=True,
            ) as outcomes:
                async for outcome in outcomes:
                    if isinstance(outcome, Ok):
                        url, size, links = outcome.value
                        found.pages[url] = size
                        reached |= dict.fromkeys(links)
                    else:
                        found.broken.append(frontier[outcome.index])
            frontier = [url for url in reached if url not in seen]
            seen |= set(frontier)
    return found


def _may_pass(error: Exception) -> bool:
    """A page that does not exist will not exist the next time either."""
    return isinstance(error, ClientError) and not (
        isinstance(error, ClientResponseError) and error.status == 404
    )


@asynccontextmanager
async def pydoc_site() -> AsyncIterator[str]:
    """Serve the documentation of a few modules, as ``python -m pydoc -b`` does."""
    pages = {name: pydoc.html.page(name, pydoc.html.document(import_module(name))) for name in SITE}
    index = "".join(f'<a href="{name}.html">{name}</a>' for name in SITE)

    async def serve(request: web.Request) -> web.Response:
        page = index if request.path == "/" else pages.get(request.path[1:].removesuffix(".html"))
        if page is None:
            raise web.HTTPNotFound
        return web.Response(text=page, content_type="text/html")

    app = web.Application()
    app.router.add_get("/{name:.*}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


async def main(depth: int) -> None:
    """Crawl the site and say what was found."""
    async with pydoc_site() as start:
        found = await crawl(start, depth)
    assert {f"{start}{name}.html" for name in SITE} <= set(found.pages)
    assert found.broken, "pydoc links to modules that this site does not serve"
    print(f"depth {depth}: {len(found.pages)} pages, {sum(found.pages.values()):,} characters")
    print(f"{len(found.broken)} links lead nowhere, such as {min(found.broken)}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2))
