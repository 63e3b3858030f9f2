"""A gateway in a process of its own: ``python gatewayprocess.py UPSTREAM_PORT``; prints its port."""

from __future__ import annotations

import sys

import anyio
import uvicorn

from aiopatterns.core.rate import Rate
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.door import door
from aiopatterns.gateway.policy import HttpCache, Limits, RoutePolicy, Timeouts
from aiopatterns.gateway.routing import Route


async def main(upstream: str) -> None:
    url = f"http://127.0.0.1:{upstream}"
    limits = Limits(trusted_proxies=("127.0.0.1",))
    long = Timeouts(idle=60, total=60)
    gateway = Gateway(
        [
            Route("/", to=url),
            Route("/slow", to=url, policy=RoutePolicy(timeouts=long)),
            Route("/kept", to=url, policy=RoutePolicy(timeouts=long, cache=HttpCache())),
            Route("/limited", to=url, policy=RoutePolicy(rate_limit=Rate(5))),
        ],
        limits=limits,
        transport="fast",
    )
    config = uvicorn.Config(
        gateway,
        http=door(limits, patience=60),
        port=0,
        proxy_headers=False,
        log_config=None,
        backlog=2048,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await server.main_loop()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
