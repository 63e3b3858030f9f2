"""Routes (thin)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiopatterns.gateway.policy import RoutePolicy

__all__ = ["Route"]


@final
class Route:
    """A route."""

    __slots__ = ("auth", "host", "methods", "name", "path", "policy", "strip_prefix", "to")

    def __init__(
        self,
        path: str,
        *,
        to: str | Callable[[Any], Awaitable[Any]],
        methods: Iterable[str] | None = None,
        host: str | None = None,
        strip_prefix: bool = False,
        auth: Any = None,
        policy: RoutePolicy | None = None,
        name: str | None = None,
    ) -> None:
        self.path = path
        self.to = to
        self.methods = None if methods is None else frozenset(methods)
        self.host = host
        self.strip_prefix = strip_prefix
        self.auth = auth
        self.policy = policy
        self.name = name or path
