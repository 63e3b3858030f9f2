"""The adapters inside the frameworks, under both checkers."""

from __future__ import annotations

from typing import Annotated, assert_type

from aiohttp import web
from fastapi import Depends, FastAPI

from aiopatterns import HealthChecker, JobQueue, Rate, TokenBucket, Worker
from aiopatterns.contrib import aiohttp as adapter
from aiopatterns.contrib.asgi import (
    CorrelationMiddleware,
    RateLimitMiddleware,
    health_routes,
    lifespan,
    provide,
)


async def store_answers() -> None:
    """Ask the store."""


jobs = JobQueue("reports", "memory://")
worker = Worker(jobs, concurrency=10)
checker = HealthChecker({"store": store_answers})
get_jobs = provide(jobs)

app = FastAPI(lifespan=lifespan(jobs, worker, checker))
app.mount("/health", health_routes(checker))
app.add_middleware(RateLimitMiddleware, limiter=TokenBucket(Rate(10)))
app.add_middleware(CorrelationMiddleware)


@app.get("/reports/{job_id}")
async def show(job_id: str, queue: Annotated[JobQueue, Depends(get_jobs)]) -> str:
    assert_type(get_jobs(), JobQueue)
    return (await queue.handle(job_id, type=str).status()).value


def of_aiohttp() -> web.Application:
    limit = adapter.rate_limit_middleware(TokenBucket(Rate(10)))
    key = adapter.app_key(jobs)
    assert_type(key, web.AppKey[JobQueue])
    application = web.Application(middlewares=[adapter.correlation_middleware, limit])
    application[key] = jobs
    assert_type(application[key], JobQueue)
    application.cleanup_ctx.append(adapter.cleanup_ctx(jobs, worker, checker))
    application.on_response_prepare.append(adapter.add_request_id)
    application.add_routes(adapter.health_routes(checker, prefix="/health"))
    return application
