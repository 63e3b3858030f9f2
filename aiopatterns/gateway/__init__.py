"""One door to many services: an ASGI application that lets requests through, and keeps the rest out."""

from __future__ import annotations

from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.auth import APIKeyAuth, Auth
from aiopatterns.gateway.body import Body, ClientGoneError
from aiopatterns.gateway.config import GatewayConfig, load_config
from aiopatterns.gateway.events import GatewayAnswered, GatewayFailed, GatewayReloaded
from aiopatterns.gateway.httpcache import HttpCacheStatistics
from aiopatterns.gateway.jwks import GatewayKeysLost, GatewayKeysRecovered, GatewayKeysRotated
from aiopatterns.gateway.jwt import JWTAuth, KeysFrom
from aiopatterns.gateway.ledger import EndpointFigures, GatewayStatistics
from aiopatterns.gateway.policy import (
    BreakerRules,
    HttpCache,
    Identity,
    Limits,
    RoutePolicy,
    Timeouts,
)
from aiopatterns.gateway.ratelimit import RateLimit
from aiopatterns.gateway.reloading import GatewayReloadFailed, reload_on_hangup
from aiopatterns.gateway.request import Chunks, Headers, Request, Response
from aiopatterns.gateway.routing import Aggregate, Route
from aiopatterns.gateway.serving import serve
from aiopatterns.gateway.transport import (
    Incoming,
    Outgoing,
    Transport,
    TransportStatistics,
    UpstreamSocket,
)
from aiopatterns.gateway.transport_aiohttp import AiohttpTransport
from aiopatterns.gateway.transport_fast import FastTransport

__all__ = [
    "APIKeyAuth",
    "Aggregate",
    "AiohttpTransport",
    "Auth",
    "Body",
    "BreakerRules",
    "Chunks",
    "ClientGoneError",
    "EndpointFigures",
    "FastTransport",
    "Gateway",
    "GatewayAnswered",
    "GatewayConfig",
    "GatewayFailed",
    "GatewayKeysLost",
    "GatewayKeysRecovered",
    "GatewayKeysRotated",
    "GatewayReloadFailed",
    "GatewayReloaded",
    "GatewayStatistics",
    "Headers",
    "HttpCache",
    "HttpCacheStatistics",
    "Identity",
    "Incoming",
    "JWTAuth",
    "KeysFrom",
    "Limits",
    "Outgoing",
    "RateLimit",
    "Request",
    "Response",
    "Route",
    "RoutePolicy",
    "Timeouts",
    "Transport",
    "TransportStatistics",
    "UpstreamSocket",
    "load_config",
    "reload_on_hangup",
    "serve",
]
