"""The catalogue: an aiohttp service with a cache and jobs, one of the two services behind a gateway.

::

    gateway --> GET /products/{item} ---> catalogue --> cache, shared by all instances --> database
                POST /products/{item}/reminders --> job: tell somebody when it is there again

Prices are loaded once for all who ask, in whichever instance; answers say how long others may keep
them, and the gateway does.

On SIGTERM callers hear first that this instance leaves; then the server answers what it has accepted,
and the worker finishes its jobs or hands them back.

Run: python docs/examples/shop/catalogue_aiohttp.py [URL] [ID]     (redis://..., with the other two programs)
"""

from __future__ import annotations

import signal
import socket
import sys
from functools import partial

import anyio
from aiohttp import web

from aiopatterns import HealthChecker, ServiceRegistry
from aiopatterns.backends import Backend, open_backend
from aiopatterns.cache import Cache, Ttl, cached
from aiopatterns.cluster import ServiceInstance
from aiopatterns.contrib.aiohttp import (
    add_request_id,
    app_key,
    cleanup_ctx,
    correlation_middleware,
    health_routes,
)
from aiopatterns.jobs import JobQueue, Worker

LEASE = 2.0  # shorter than usual: jobs of a killed instance are to go on soon
PRICES = {"tea": 3, "salt": 1, "oil": 7}  # stands for a database


def application(backend: Backend) -> web.Application:
    """Return the application; it may be made, and live, several times in one process."""
    prices: Cache[str, int | None] = Cache("prices", ttl=Ttl(60, jitter=0.1), backend=backend)
    jobs = JobQueue("reminders", backend, lease=LEASE)
    checker = HealthChecker({"store": partial(backend.kv.get, "health")}, interval=5)
    jobs_key = app_key(jobs)

    @cached(prices, key="{item}")
    async def price(item: str) -> int | None:
        await anyio.sleep(0.005)
        return PRICES.get(item)

    @jobs.job(timeout=30)
    async def remind(item: str, mail: str) -> str:
        await anyio.sleep(0.01)  # a mail is sent
        return f"{mail}: {item}"

    async def show(request: web.Request) -> web.Response:
        item = request.match_info["item"]
        found = await price(item)
        if found is None:
            return web.json_response({"error": f"there is no {item}"}, status=404)
        headers = {"Cache-Control": "public, max-age=1"}
        return web.json_response({"item": item, "price": found}, headers=headers)

    async def add_reminder(request: web.Request) -> web.Response:
        handle = await remind.enqueue(request.match_info["item"], request.query.get("mail", ""))
        return web.json_response({"id": handle.job_id}, status=202)

    async def reminder(request: web.Request) -> web.Response:
        handle = request.app[jobs_key].handle(request.match_info["id"])
        return web.json_response({"status": (await handle.status()).value})

    app = web.Application(middlewares=[correlation_middleware])
    app[jobs_key] = jobs
    app.cleanup_ctx.append(cleanup_ctx(prices, jobs, Worker(jobs, concurrency=10), checker))
    app.on_response_prepare.append(add_request_id)
    app.add_routes(
        [
            web.get("/products/{item}", show),
            web.post("/products/{item}/reminders", add_reminder),
            web.get("/reminders/{id}", reminder),
            *health_routes(checker, prefix="/health"),
        ]
    )
    return app


async def main(url: str, name: str) -> None:
    """Serve, registered, until a signal."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # asyncio sets it on its own only
    instance = ServiceInstance("catalogue", *listener.getsockname(), id=name)
    async with open_backend(url) as backend, ServiceRegistry(backend, interval=0.2) as registry:
        runner = web.AppRunner(application(backend), access_log=None, shutdown_timeout=10)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            async with registry.register(instance):
                with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    print(f"{name} is ready", flush=True)
                    async for _ in signals:
                        break
        finally:
            await runner.cleanup()
    print(f"{name} has left", flush=True)


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    anyio.run(main, given.get(0, "redis://localhost:6379"), given.get(1, "catalogue-1"))
