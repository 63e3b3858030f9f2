"""Endpoints for tests of strategies and balancers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiopatterns.cluster.endpoint import Endpoint, Traffic
from aiopatterns.cluster.instance import ServiceInstance

__all__ = ["endpoints", "instances", "who"]


def who(name: str, weight: float = 1, **fields: Any) -> ServiceInstance:
    return ServiceInstance("users", f"{name}.internal", 80, id=name, weight=weight, **fields)


def instances(names: str, **fields: Any) -> list[ServiceInstance]:
    """One for each letter."""
    return [who(name, **fields) for name in names]


def endpoints(weights: Sequence[float], traffic: Traffic | None = None) -> list[Endpoint]:
    """Endpoints a, b, c, ... of these weights, as a pool would give them to a strategy."""
    shared = traffic or Traffic()
    made = [Endpoint(who(chr(ord("a") + at), weight), shared) for at, weight in enumerate(weights)]
    mean = sum(weights) / len(weights)
    for endpoint, weight in zip(made, weights, strict=True):
        endpoint.weigh(weight, mean)
    return made
