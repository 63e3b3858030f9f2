"""A gateway as users write it, under both checkers."""

from __future__ import annotations

from typing import assert_type

from aiopatterns import Gateway, Rate, Retry, ServiceRegistry
from aiopatterns.gateway import (
    APIKeyAuth,
    BreakerRules,
    GatewayConfig,
    GatewayStatistics,
    HttpCache,
    Identity,
    JWTAuth,
    Limits,
    Request,
    Response,
    Route,
    RoutePolicy,
    Timeouts,
    load_config,
)


async def as_json(request: Request) -> dict[str, object]:
    assert_type(request.identity, Identity | None)
    assert_type(request.header(b"accept"), bytes | None)
    return {"path": request.path, "client": request.client}


async def as_response(request: Request) -> Response:
    return Response.json({"method": request.method}, status=201)


keys = APIKeyAuth({"ann": "a-key-of-ann", "bob": ["an-old-one", "a-new-one"]})
tokens = JWTAuth(
    "https://login.example.com/jwks.json",
    algorithms=["ES256"],
    issuer="https://login.example.com/",
    audience="https://api.example.com",
)
policy = RoutePolicy(
    timeouts=Timeouts(total=5),
    retry=Retry(on=OSError),
    breaker=BreakerRules(),
    rate_limit=Rate(100, per=60),
    cache=HttpCache(),
)
routes = [
    Route("/me", to=as_json, auth=keys),
    Route("/orders", to=as_response, methods=["POST"], auth=tokens, policy=policy),
    Route("/users", to="users", strip_prefix=True, host="api.example.com"),
]
gateway = Gateway(
    routes,
    registry=ServiceRegistry("memory://"),
    limits=Limits(max_body=1024, trusted_proxies=("10.0.0.0/8",)),
    transport="fast",
)


async def use() -> None:
    async with gateway as opened:
        assert_type(opened, Gateway)
        assert_type(gateway.statistics(), GatewayStatistics)
        answer = await gateway.fetch("users", "/7", headers=[(b"accept", b"application/json")])
        assert_type(answer, Response)
        assert_type(answer.status, int)
        await gateway.reload(routes)


def configured() -> None:
    config = load_config("gateway.toml")
    assert_type(config, GatewayConfig)
    assert_type(Gateway.of(config), Gateway)
    assert_type(Gateway.from_toml("gateway.toml"), Gateway)
