"""A small shop that runs for real, in one process, with its dashboard: what a page is to show is there."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from starlette.applications import Starlette
from starlette.routing import Mount

from aiopatterns import Cache, CircuitBreaker, Dag, Rate, TokenBucket
from aiopatterns.backends import open_backend
from aiopatterns.dashboard import Dashboard, StatisticsPublisher
from aiopatterns.jobs import JobQueue, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOKEN = "a-token-of-a-test-0123456789"


class Shop:
    """A queue with a job that works and one that fails, a breaker, a limiter, a cache and a graph.

    Attributes:
        dashboard: It may change something.
        healthy: Whether mails can be sent.
    """

    def __init__(self) -> None:
        self.healthy = False
        self.backend = open_backend("memory://")
        self.jobs = JobQueue("mail", self.backend)
        self.dashboard = Dashboard(
            self.backend, token=TOKEN, allow_actions=True, show_arguments=True
        )
        self.receipt = self.jobs.job(self.send_receipt)
        self.breaker = CircuitBreaker("payments")
        self.limiter = TokenBucket(Rate(50, per=60.0))
        self.cache: Cache[str, str] = Cache("products", ttl=60)
        self.graph = Dag("nightly")
        self.graph.task(self.fetch)
        self.graph.task(self.report)

    async def send_receipt(self, order: int, password: str = "") -> str:
        if not self.healthy:
            msg = f"the mail server refused order {order}"
            raise ConnectionRefusedError(msg)
        return f"sent {order}"

    async def fetch(self) -> list[int]:
        return [1, 2, 3]

    async def report(self, fetch: list[int]) -> int:
        await anyio.sleep_forever()
        return sum(fetch)

    def application(self) -> Starlette:
        """Return the shop as a server runs it: open while it is, with its dashboard at ``/``."""
        return Starlette(routes=[Mount("/", self.dashboard)], lifespan=self._open)

    @asynccontextmanager
    async def _open(self, _app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            await enter(self.jobs)
            await enter(Worker(self.jobs))
            await enter(self.cache)
            self.limiter.try_acquire(10)
            publisher = StatisticsPublisher(
                self.backend, self.breaker, self.cache, self.graph, named={"partner": self.limiter}
            )
            await enter(publisher)
            await enter(self.dashboard)
            tasks = await enter(anyio.create_task_group())
            tasks.start_soon(self.graph.run)
            await self.receipt.enqueue(41, password="hunter2-secret")
            yield
            tasks.cancel_scope.cancel()
