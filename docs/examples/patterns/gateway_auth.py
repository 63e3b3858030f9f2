"""Gateway, who may use it: keys of clients, and a limit for each of them."""

from __future__ import annotations

import asyncio

import httpx

from aiopatterns.gateway import APIKeyAuth, Gateway, Request, Route, RoutePolicy
from aiopatterns.resilience import Rate


async def hello(request: Request) -> dict[str, object]:
    return {"hello": request.identity.subject if request.identity else "nobody"}


gateway = Gateway(
    [
        Route(
            "/hello",
            to=hello,
            auth=APIKeyAuth({"ann": "key-of-ann", "bob": "key-of-bob"}),
            policy=RoutePolicy(rate_limit=Rate(2, per=60)),
        )
    ]
)


async def main() -> None:
    door = httpx.ASGITransport(app=gateway)
    async with gateway, httpx.AsyncClient(transport=door, base_url="http://shop") as client:

        async def ask(key: str) -> int:
            return (await client.get("/hello", headers={"X-API-Key": key})).status_code

        seen = [await ask(key) for key in ("stolen", "key-of-ann", "key-of-ann", "key-of-ann")]
        bob = await ask("key-of-bob")
    assert seen == [401, 200, 200, 429]
    assert bob == 200
    print(f"wrong key {seen[0]}, third call of ann {seen[-1]}, bob meanwhile {bob}")


if __name__ == "__main__":
    asyncio.run(main())
