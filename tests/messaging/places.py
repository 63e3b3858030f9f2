"""One test over both backends: it is given one that is open, and has so long to come to its end."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import anyio

from aiopatterns.backends import open_backend

__all__ = ["PATIENCE", "over_backends"]

PATIENCE = 20.0


def over_backends(test: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``test(backend, ...)`` ask for the fixture ``place``, a URL, and open it."""

    @wraps(test)
    async def wrapper(place: str, **more: Any) -> None:
        async with open_backend(place) as backend:
            with anyio.fail_after(PATIENCE):
                await test(backend, **more)

    del wrapper.__wrapped__
    signature = inspect.signature(test)
    place, *more = signature.parameters.values()
    taken: Any = wrapper
    taken.__signature__ = signature.replace(parameters=[place.replace(name="place"), *more])
    return wrapper
