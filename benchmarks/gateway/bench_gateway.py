"""The gateway: CPU of the proxy's process for one GET of 1 KB, without that of its server.

Every contender is one process, one worker of uvicorn on uvloop and httptools (or aiohttp's own
server), before the same service; 32 connections with one request at a time each load it, and every
answer is checked. Headers are cleaned and the answer is streamed by all of them. What is compared
is the CPU time of the proxy's process, user and system, for each request: with two cores for load,
proxy and service, requests a second would measure the load.

What the server costs stands beside, as a static answer without a proxy, and is taken off: each
figure is the proxy's less the server's, measured one after the other. 55.6 us are 18,000 requests
per core-second.

Goals: 8,000 requests per core-second over aiohttp's client (125 us), 18,000 over our transport
(55.6 us); a token, a limit for each client, a circuit and a balancer cost 15 us more; answers that
are kept, 30,000 (33.3 us).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gateway.field import measured
from benchmarks.harness import Bench, Figure

if TYPE_CHECKING:
    from benchmarks.harness import Contender

SECONDS = 2.0

bench = Bench(
    "gateway/gateway",
    versions=("aiohttp", "httptools", "uvicorn", "httpx", "fastapi"),
    loops=("uvloop",),
    rounds=5,
)


def through(name: str) -> Contender:
    """Measure the proxy of this name."""

    async def run() -> Figure:
        return Figure(measured(name, SECONDS)["us"])

    return run


def less(name: str, of: str) -> Contender:
    """Measure what one proxy takes more than another, one after the other."""

    async def run() -> Figure:
        return Figure(measured(name, SECONDS)["us"] - measured(of, SECONDS)["us"])

    return run


forward = bench.case(
    "GET of 1 KB, CPU of the proxy less its server's", clock="cpu", unit="us/request", warm=False
)
forward.ours("aiopatterns.Gateway, fast")(less("ours-fast", "static"))
forward.ours("aiopatterns.Gateway, aiohttp")(less("ours-aiohttp", "static"))
forward.limit("uvicorn itself, a static answer")(through("static"))
forward.peer("uvicorn and aiohttp's client", follows="aiohttp docs, Client Quickstart: Streaming")(
    less("uvicorn-aiohttp", "static")
)
forward.peer(
    "aiohttp's server and client, both", follows="aiohttp docs, Web Quickstart: Streaming"
)(through("aiohttp-both"))
forward.peer("FastAPI and httpx", follows="httpx docs, Async Support: Streaming Responses")(
    less("fastapi-httpx", "static")
)
forward.under(1e6 / 18_000, ours="aiopatterns.Gateway, fast")
forward.under(1e6 / 8_000, ours="aiopatterns.Gateway, aiohttp")

guarded = bench.case(
    "a token, a limit, a circuit and a balancer, more than a plain route",
    clock="cpu",
    unit="us/request",
    warm=False,
)
guarded.ours("aiopatterns.Gateway, all four")(less("ours-full", "ours-fast"))
guarded.under(15.0)

kept = bench.case(
    "GET of an answer that is kept, less the server's", clock="cpu", unit="us/request", warm=False
)
kept.ours("aiopatterns.Gateway, cache")(less("ours-cached", "static"))
kept.limit("uvicorn itself, a static answer")(through("static"))
kept.under(1e6 / 30_000)

if __name__ == "__main__":
    bench.main()
