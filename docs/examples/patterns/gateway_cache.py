"""Gateway, answers that are kept: as long as the service allows, and gone when it changes."""

from __future__ import annotations

import asyncio

import httpx

from aiopatterns.gateway import Gateway, HttpCache, Request, Response, Route, RoutePolicy

asked: list[str] = []


async def catalogue(request: Request) -> Response:
    asked.append(request.method)
    headers = [(b"cache-control", b"max-age=60"), (b"etag", b'"v1"')]
    return Response(200, headers, b"chairs, tables")


gateway = Gateway([Route("/catalogue", to=catalogue, policy=RoutePolicy(cache=HttpCache()))])


async def main() -> None:
    door = httpx.ASGITransport(app=gateway)
    async with gateway, httpx.AsyncClient(transport=door, base_url="http://shop") as client:
        for _ in range(100):
            assert (await client.get("/catalogue")).text == "chairs, tables"
        known = await client.get("/catalogue", headers={"If-None-Match": '"v1"'})
        await client.post("/catalogue")
        await client.get("/catalogue")
    assert known.status_code == 304
    assert asked == ["GET", "POST", "GET"]
    print(f"103 requests; the service saw {len(asked)}")


if __name__ == "__main__":
    asyncio.run(main())
