"""The proxies that are measured, each a process: one worker of uvicorn on uvloop and httptools.

All forward a GET, drop the headers that concern one connection only, tell the service who asked,
and stream the answer. ``GET /-/cpu`` tells the CPU time of the process so far.

``python -m benchmarks.gateway.peers.proxies NAME UPSTREAM`` prints its port.
"""

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

App = Callable[[Any, Any, Any], Awaitable[None]]
HOPS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
SECRET = "a secret of thirty-two octets, at least"


def static(upstream: str) -> App:
    """No proxy: the cost of the server alone."""
    head = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"1024")],
    }
    body = {"type": "http.response.body", "body": b"x" * 1024}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(head)
        await send(body)

    return app


def ours(transport: str) -> Callable[[str], App]:
    """Our gateway, a plain route."""

    def make(upstream: str) -> App:
        from aiopatterns.gateway import Gateway, Route

        return Gateway([Route("/", to=upstream)], transport=transport)

    return make


def ours_full(upstream: str) -> App:
    """Our gateway: a token, a limit for each client, a breaker, a balancer over a registry."""
    from aiopatterns.backends import open_backend
    from aiopatterns.cluster import ServiceInstance, ServiceRegistry
    from aiopatterns.gateway import Gateway, JWTAuth, Route, RoutePolicy
    from aiopatterns.resilience import Rate

    backend = open_backend("memory://")
    registry = ServiceRegistry(backend)
    auth = JWTAuth(jwks(), algorithms=["HS256"], issuer="bench", audience="bench")
    policy = RoutePolicy(rate_limit=Rate(1e9, per=1.0))
    route = Route("/", to="service", auth=auth, policy=policy)
    gateway = Gateway([route], registry=registry, transport="fast")
    port = int(upstream.rpartition(":")[2])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await gateway(scope, receive, send)
            return
        instance = ServiceInstance("service", "127.0.0.1", port)
        async with backend, registry, registry.register(instance):
            await gateway(scope, receive, send)

    return app


def ours_cached(upstream: str) -> App:
    """Our gateway: an answer that it keeps."""
    from aiopatterns.gateway import Gateway, HttpCache, Route, RoutePolicy

    policy = RoutePolicy(cache=HttpCache())
    return Gateway([Route("/", to=upstream, policy=policy)], transport="fast")


def fastapi_httpx(upstream: str) -> App:
    """FastAPI's StreamingResponse over httpx's streaming responses, as both documents show."""
    import httpx
    from fastapi import FastAPI, Request
    from starlette.background import BackgroundTask
    from starlette.responses import StreamingResponse

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(base_url=upstream, limits=limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/{path:path}")
    async def proxy(request: Request, path: str) -> StreamingResponse:
        headers = [each for each in request.headers.raw if each[0] not in HOPS]
        headers.append((b"x-forwarded-for", request.client.host.encode()))  # type: ignore[union-attr]
        url = httpx.URL(path=request.url.path, query=request.url.query.encode())
        sent = client.build_request("GET", url, headers=headers)
        answer = await client.send(sent, stream=True)
        kept = {
            name.decode(): value.decode()
            for name, value in answer.headers.raw
            if name.lower() not in HOPS
        }
        close = BackgroundTask(answer.aclose)
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=close)

    return app


def uvicorn_aiohttp(upstream: str) -> App:
    """A bare ASGI app over aiohttp's client."""
    import aiohttp
    from yarl import URL

    session: aiohttp.ClientSession

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal session
        if scope["type"] == "lifespan":
            await receive()
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        headers = [(n.decode(), v.decode()) for n, v in scope["headers"] if n not in HOPS]
        headers.append(("x-forwarded-for", scope["client"][0]))
        url = URL(upstream + scope["raw_path"].decode(), encoded=True)
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            kept = [each for each in answer.raw_headers if each[0].lower() not in HOPS]
            status = answer.status
            await send({"type": "http.response.start", "status": status, "headers": kept})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    return app


async def aiohttp_both(upstream: str, listener: socket.socket) -> None:
    """aiohttp's server and client: the streamed response of its documentation."""
    import aiohttp
    from aiohttp import web

    session: aiohttp.ClientSession

    async def proxy(request: web.Request) -> web.StreamResponse:
        hops = {each.decode() for each in HOPS}
        headers = [(n, v) for n, v in request.headers.items() if n.lower() not in hops]
        headers.append(("x-forwarded-for", request.remote or ""))
        url = upstream + request.raw_path
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            kept = [(n, v) for n, v in answer.headers.items() if n.lower() not in hops]
            response = web.StreamResponse(status=answer.status)
            response.headers.extend(kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def cpu(request: web.Request) -> web.Response:
        return web.Response(text=str(time.process_time()))

    app = web.Application()
    app.router.add_get("/-/cpu", cpu)
    app.router.add_get("/{path:.*}", proxy)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await asyncio.Event().wait()


APPS: dict[str, Callable[[str], App]] = {
    "static": static,
    "ours-aiohttp": ours("aiohttp"),
    "ours-fast": ours("fast"),
    "ours-full": ours_full,
    "ours-cached": ours_cached,
    "fastapi-httpx": fastapi_httpx,
    "uvicorn-aiohttp": uvicorn_aiohttp,
}


def jwks() -> dict[str, Any]:
    """The key that signs the token of the load."""
    from joserfc.jwk import OctKey

    key = OctKey.import_key(SECRET, {"kid": "bench", "alg": "HS256", "use": "sig"})
    return {"keys": [key.as_dict(private=True)]}


def token() -> str:
    """A token that the gateway takes."""
    from joserfc import jwt
    from joserfc.jwk import OctKey

    claims = {"sub": "bench", "iss": "bench", "aud": "bench", "exp": int(time.time()) + 3600}
    key = OctKey.import_key(SECRET)
    return jwt.encode({"alg": "HS256", "kid": "bench"}, claims, key)


def told(app: App) -> App:
    """Let a proxy tell the CPU time of its process."""

    async def telling(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != "/-/cpu":
            await app(scope, receive, send)
            return
        body = json.dumps(time.process_time()).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return telling


def main(name: str, upstream: str) -> None:
    import uvloop

    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)
    if name == "aiohttp-both":
        uvloop.run(aiohttp_both(upstream, listener))
        return
    config = uvicorn.Config(
        told(APPS[name](upstream)),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        lifespan="off" if name == "static" else "on",
    )
    uvloop.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main(*sys.argv[1:])
