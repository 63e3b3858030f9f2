"""Gateway: one door, routes behind it, and what is refused before any service hears of it."""

from __future__ import annotations

import asyncio

import httpx

from aiopatterns.gateway import Gateway, Request, Route


async def hello(request: Request) -> dict[str, object]:
    return {"path": request.path}


gateway = Gateway([Route("/hello", to=hello), Route("/billing", to="http://127.0.0.1:9")])


async def main() -> None:
    door = httpx.ASGITransport(app=gateway)
    async with gateway, httpx.AsyncClient(transport=door, base_url="http://shop") as client:
        asked = ["/hello/world", "/billing/7", "/nowhere", "/hello/..%2f..%2fetc/passwd"]
        answers = [await client.get(path) for path in asked]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 502, 404, 400]
    print(dict(zip(asked, statuses, strict=True)))


if __name__ == "__main__":
    asyncio.run(main())
