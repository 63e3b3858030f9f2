"""A sharded cache: sessions over several servers, thumbnails in shards of this process, upkeep.

Sessions live fifteen minutes in three shards, each with a backend of its own. A second web server
(here a second cache over the same backends) finds them without a load, and forgets a session that
the first one has ended. Thumbnails need no backend: four small LRU shards bound the memory. What is
over goes by itself, a little at a time, whether anybody asks for it or not.

The same program runs in memory and on Redis:

Run: python docs/examples/sharded_cache.py [URL]      (memory:// by default, or redis://...)
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from aiopatterns.backends import open_backend
from aiopatterns.cache import MISSING, ShardedCache, Ttl

URL = sys.argv[1] if len(sys.argv) > 1 else "memory://"
# In a shop these would be three servers; here they are three namespaces of one.
SERVERS = {name: open_backend(URL, namespace=f"cache-{name}") for name in ("a", "b", "c")}


@dataclass(frozen=True)
class Session:
    """Who is at the other end."""

    token: str
    user: int


class Database:
    """Where sessions come from; it counts how often it is asked."""

    def __init__(self) -> None:
        self.questions = 0

    async def session(self, token: str) -> Session:
        """Find one session."""
        self.questions += 1
        await asyncio.sleep(0.001)
        return Session(token, int(token[5:]))

    async def sessions(self, tokens: list[str]) -> dict[str, Session]:
        """Find several by one question."""
        self.questions += 1
        await asyncio.sleep(0.001)
        return {token: Session(token, int(token[5:])) for token in tokens}


def web_server() -> ShardedCache[str, Session]:
    """Return the cache of one web server; all of them name the shards alike."""
    return ShardedCache(SERVERS, name="sessions", ttl=Ttl(900, jitter=0.1), type=Session)


async def share_sessions() -> None:
    """One question to the database for each session, whichever server is asked."""
    database = Database()
    tokens = [f"token{number}" for number in range(300)]
    async with web_server() as here, web_server() as there:
        # Ten requests at once for a session that nobody has: one load.
        found = await asyncio.gather(
            *(here.get_or_load(tokens[0], database.session) for _ in range(10))
        )
        assert found == [Session("token0", 0)] * 10
        assert database.questions == 1

        # A batch: one question for each shard that misses keys.
        batch = await here.get_or_load_many(tokens, database.sessions)
        assert [batch[token] for token in tokens] == [Session(t, int(t[5:])) for t in tokens]
        assert database.questions == 1 + len(SERVERS)

        # The other web server has them from the backends.
        assert await there.get_or_load_many(tokens, database.sessions) == batch
        assert database.questions == 1 + len(SERVERS)

        # A session is ended here, and forgotten there.
        await here.invalidate("token7")
        async with asyncio.timeout(5):
            while there.get_nowait("token7") is not MISSING:
                await asyncio.sleep(0.005)

        figures = here.statistics()
        for name, shard in figures.shards.items():
            print(f"shard {name}: {shard.size} sessions, {shard.loads} loads")
        assert all(60 <= shard.size <= 140 for shard in figures.shards.values())
        print(f"sessions: {figures.size} here, {database.questions} questions to the database")


async def bound_thumbnails() -> None:
    """LRU: what was used lately stays, and there are never more than a hundred."""
    thumbnails: ShardedCache[int, bytes] = ShardedCache(
        4, name="thumbnails", ttl=None, max_size=100, eviction="lru"
    )
    for picture in range(1_000):
        await thumbnails.set(picture, bytes(16))
        assert thumbnails.get_nowait(0) is not MISSING, "it is asked for all the time"
    figures = thumbnails.statistics()
    assert figures.size == 100
    assert figures.evictions == 900
    assert thumbnails.get_nowait(1) is MISSING
    assert thumbnails.get_nowait(999) is not MISSING
    print(f"thumbnails: {figures.size} of 1000 kept, the one in use among them")


async def keep_in_order() -> None:
    """What is over goes without being asked for, while the cache is open."""
    codes: ShardedCache[int, str] = ShardedCache(2, name="codes", ttl=0.05)
    async with codes:
        for user in range(200):
            await codes.set(user, f"{user:06d}")
        assert codes.statistics().size == 200
        async with asyncio.timeout(10):
            while codes.statistics().size:
                await asyncio.sleep(0.05)
    # Where a cache is not opened, a job of your own can do it: so many entries at a time.
    await codes.set(1, "000001")
    await asyncio.sleep(0.06)
    swept = sum(codes.sweep(100) for _ in codes.shards)
    assert swept == 1
    print("codes: 201 were over, and are gone")


async def main() -> None:
    """Run the three, one after the other."""
    await share_sessions()
    await bound_thumbnails()
    await keep_in_order()


if __name__ == "__main__":
    asyncio.run(main())
