"""Orders: a FastAPI service with jobs and a circuit, one of the two services behind a gateway.

::

    gateway --> PUT /orders/{id} --> orders --- price of the item ---> catalogue (catalogue_aiohttp.py)
                                       |
                                       '--> job: confirm the order     GET /orders/{id}: is it done?

A client chooses the id of its order, so that sending it again is safe: the same order, the same job.
The price is asked of the catalogue's instances through a circuit, with retries at another instance.

On SIGTERM callers hear first that this instance leaves; then the server answers what it has accepted,
and the worker finishes its jobs or hands them back.

Run: python docs/examples/shop/orders_fastapi.py [URL] [ID]     (redis://..., with the other two programs)
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio
import httpx
import uvicorn
from fastapi import FastAPI, HTTPException

from aiopatterns import CircuitBreaker, HealthChecker, Retry, ServiceRegistry, Stack, Timeout
from aiopatterns.backends import Backend, open_backend
from aiopatterns.cluster import ServiceClient, ServiceInstance
from aiopatterns.contrib.asgi import CorrelationMiddleware, health_routes, lifespan
from aiopatterns.core.errors import NoEndpointError, RejectedError
from aiopatterns.jobs import JobQueue, JobStatus, Worker
from aiopatterns.resilience import Constant

LEASE = 2.0  # shorter than usual: jobs of a killed instance are to go on soon
# Attempts that fail or take longer than a second go to another instance.
ASKING = Stack(
    Timeout(5),
    Retry(on=(httpx.TransportError, TimeoutError), attempts=3, backoff=Constant(0.02)),
    Timeout(1),
)


@asynccontextmanager
async def closing(client: httpx.AsyncClient) -> AsyncGenerator[None]:
    """Keep a client open as long as the application."""
    async with client:
        yield


def application(backend: Backend, registry: ServiceRegistry) -> FastAPI:
    """Return the application; it may be made, and live, several times in one process."""
    jobs = JobQueue("orders", backend, lease=LEASE)
    http = httpx.AsyncClient(timeout=5)
    catalogue = ServiceClient("catalogue", registry, stack=ASKING)
    circuit = CircuitBreaker("catalogue")
    checker = HealthChecker({"store": partial(backend.kv.get, "health")}, interval=5)

    @jobs.job(timeout=30)
    async def confirm(order_id: str, item: str, price: int) -> str:
        await anyio.sleep(0.01)  # a mail is sent
        return f"{order_id}: {item} for {price}"

    async def price_at(item: str, endpoint: ServiceInstance) -> int:
        answer = await http.get(f"http://{endpoint.address}/products/{item}")
        if answer.status_code == 404:
            raise HTTPException(404, f"there is no {item}")
        return int(answer.raise_for_status().json()["price"])

    @circuit
    async def price(item: str) -> int:
        return await catalogue.call(partial(price_at, item))

    app = FastAPI(lifespan=lifespan(closing(http), jobs, Worker(jobs, concurrency=10), checker))
    app.mount("/health", health_routes(checker))
    app.add_middleware(CorrelationMiddleware)

    @app.put("/orders/{order_id}", status_code=202)
    async def order(order_id: str, item: str) -> dict[str, str | int]:
        try:
            found = await price(item)
        except (NoEndpointError, RejectedError):
            raise HTTPException(503, "no price to be had now", {"Retry-After": "1"}) from None
        await confirm.using(id=order_id).enqueue(order_id, item, found)
        return {"order": order_id, "price": found}

    @app.get("/orders/{order_id}")
    async def show(order_id: str) -> dict[str, str]:
        handle = confirm.handle(order_id)
        status = await handle.status()
        if status is JobStatus.UNKNOWN:
            raise HTTPException(404, "no such order")
        if status is not JobStatus.DONE:
            return {"status": status.value}
        return {"status": status.value, "confirmed": await handle.result(timeout=5)}

    return app


class Server(uvicorn.Server):
    """A server that leaves signals to its program."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


async def main(url: str, name: str) -> None:
    """Serve, registered, until a signal."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # asyncio sets it on its own only
    instance = ServiceInstance("orders", *listener.getsockname(), id=name)
    async with open_backend(url) as backend, ServiceRegistry(backend, interval=0.2) as registry:
        app = application(backend, registry)
        server = Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            while not server.started:
                await anyio.sleep(0.01)
            async with registry.register(instance):
                with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    print(f"{name} is ready", flush=True)
                    async for _ in signals:
                        break
            server.should_exit = True
    print(f"{name} has left", flush=True)


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    anyio.run(main, given.get(0, "redis://localhost:6379"), given.get(1, "orders-1"))
