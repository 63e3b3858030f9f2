"""A process that serves: it registers, prints what happens to it, and renews until it is killed.

Usage: ``python server.py URL ID TTL [VERSION]``. Lines: ``registered EPOCH``, then ``lost``.
"""

from __future__ import annotations

import sys

import anyio

from aiopatterns.cluster import ServiceInstance, ServiceRegistry


def say(*words: object) -> None:
    print(*words, flush=True)


async def main(url: str, name: str, ttl: float, version: str) -> None:
    me = ServiceInstance("users", "127.0.0.1", 8000, id=name, version=version)
    async with ServiceRegistry(url, ttl=ttl, propagation=0) as registry:
        async with registry.register(me) as registration:
            say("registered", registration.statistics().epoch)
            await registration.wait_lost()
            say("lost")
            await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], float(sys.argv[3]), (*sys.argv, "1")[4])
