"""A gateway from a TOML file: the same words as in code, checked as a whole, reloaded as a whole.

::

    backend = "redis://:${REDIS_PASSWORD}@redis:6379"     where services register; shared limits
    transport = "fast"

    [limits]                       fields of Limits
    trusted_proxies = ["10.0.0.0/8"]

    [defaults]                     what holds for every route
    timeouts = { total = 30 }

    [auth.people]                  authenticators by name: a JWTAuth, for it has "jwks",
    jwks = "https://login.example.org/jwks"
    algorithms = ["RS256"]
    issuer = "https://login.example.org"
    audience = "shop"

    [auth.partners]                or an APIKeyAuth, for it has "keys"
    keys = { acme = "${ACME_KEY}" }

    [[routes]]                     fields of Route
    path = "/api/orders"
    to = "orders"
    strip_prefix = true
    auth = "people"
    policy = { cache = true, rate_limit = { amount = 100, per = 60 } }

A route's policy is laid over ``[defaults]``, table by table; ``false`` takes a thing away, and
``true`` takes it with its own defaults.

Guarantees: a file with a mistake anywhere is refused as a whole, with all its mistakes at once,
unknown keys among them; no message shows a secret. Objects whose text is the same after a reload
are the same objects, so that open circuits, key sets, retry budgets and used-up limits stay.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.backends.opening import open_backend
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.core.codec import JSON
from aiopatterns.core.errors import CodecError, ConfigError
from aiopatterns.core.validate import choice, text
from aiopatterns.gateway.auth import APIKeyAuth
from aiopatterns.gateway.jwt import JWTAuth
from aiopatterns.gateway.placeholders import Placeholders
from aiopatterns.gateway.policies import Policies, fields_of
from aiopatterns.gateway.policy import Limits, RoutePolicy
from aiopatterns.gateway.routing import Route, Router
from aiopatterns.gateway.stock import Stock
from aiopatterns.gateway.tables import Table, is_list

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.gateway.auth import Auth

__all__ = ["GatewayConfig", "load_config"]

_TRANSPORTS: Final = ("aiohttp", "fast")
_ROUTE: Final = ("path", "to", "methods", "host", "strip_prefix")
# What a JWTAuth needs, for every other value to be tried beside.
_A_TOKEN: Final[Mapping[str, Any]] = MappingProxyType(
    {"jwks": "https://localhost/", "algorithms": ["RS256"], "issuer": None, "audience": None}
)


@final
@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What a file says, as objects.

    Attributes:
        file: Which file.
        routes: Its routes, in order.
        defaults: What holds for routes that say nothing else.
        limits: How much a client may send.
        registry: Where services are found, if the file names a backend; it is not open.
        transport: ``"aiohttp"`` or ``"fast"``.
        name: How statistics and events call the gateway.
        made: What each object was made of, for the next reload.
    """

    file: Path
    routes: tuple[Route, ...]
    defaults: RoutePolicy
    limits: Limits
    registry: ServiceRegistry | None
    transport: str
    name: str
    made: Mapping[str, tuple[object, object]] = field(repr=False)


def load_config(
    path: str | PathLike[str], *, previous: GatewayConfig | None = None
) -> GatewayConfig:
    """Read a file.

    Args:
        path: The file, in TOML.
        previous: What was read before, if it is read again: what has not changed is taken over.

    Returns:
        What it says. Nothing is opened, and nothing is fetched.

    Raises:
        ConfigError: Something is wrong; it holds all that is.
        OSError: The file cannot be read.
        ImportError: An extra is missing; it names the command.
    """
    file = Path(path)
    problems: list[str] = []

    def problem(where: str, what: str) -> None:
        problems.append(f"{where}: {what}" if where else what)

    placeholders = Placeholders(file.parent, problem)
    values = placeholders.fill(_parsed(file))
    stock = Stock({} if previous is None else previous.made)
    config = _Reader(Table(values, "", problem), stock).read(file)
    if problems:
        found = [placeholders.hide(each) for each in problems]
        raise ConfigError(file=str(file), problems=found)
    return config


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no UTF-8
        what = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8"
        raise ConfigError(file=str(file), problems=[f"not a TOML file: {what}"]) from None


@final
@dataclass(frozen=True, slots=True)
class _Core:
    """What a gateway that runs cannot change."""

    backend: Backend | None
    registry: ServiceRegistry | None
    transport: str
    name: str


def _core(
    *,
    backend: str | None = None,
    namespace: str = "ap",
    transport: str = "aiohttp",
    name: str = "gateway",
) -> _Core:
    choice("transport", transport, _TRANSPORTS)
    opened = open_backend("memory://" if backend is None else backend, namespace=namespace)
    registry = None if backend is None else ServiceRegistry(opened)
    return _Core(None if backend is None else opened, registry, transport, text("name", name))


@final
class _Reader:
    """Reads one file once; what it cannot read, it notes and leaves out.

    Args:
        table: All of it.
        stock: Where its objects are made, or were.
    """

    __slots__ = ("_auths", "_core", "_defaults", "_policies", "_stock", "_table")

    def __init__(self, table: Table, stock: Stock) -> None:
        self._table = table
        self._stock = stock
        self._core = self._read_core()
        self._policies = Policies(stock, self._core.backend)
        self._auths = {name: self._auth(name, each) for name, each in table.named("auth").items()}
        self._defaults = table.take("defaults").get("defaults", {})

    def read(self, file: Path) -> GatewayConfig:
        """Return what it says, as far as that can be made."""
        table, core = self._table, self._core
        defaults = self._read_defaults()
        routes = [self._route(each, defaults) for each in table.tables("routes")]
        if not table.values.get("routes"):
            table.refuse("routes", "is missing; a gateway needs at least one")
        whole = tuple(route for route in routes if route is not None)
        table.make(Router, {"routes": [(route, None) for route in whole]})
        limits = self._limits()
        table.end()
        return GatewayConfig(
            file=file,
            routes=whole,
            defaults=defaults or RoutePolicy(),
            limits=limits or Limits(),
            registry=core.registry,
            transport=core.transport,
            name=core.name,
            made=self._stock.made,
        )

    def _read_core(self) -> _Core:
        table = self._table
        values = table.take("backend", "namespace", "transport", "name")
        before = self._stock.text("core", values)
        for name in before.keys() | values.keys():
            if before.get(name) != values.get(name):
                table.refuse(name, "changes only with a restart")
        core = self._stock.take("core", values, lambda: table.make(_core, values))
        return core or _core(backend="memory://")

    def _limits(self) -> Limits | None:
        table = self._table.table("limits")
        if table is None:
            return Limits()
        values = table.take(*fields_of(Limits))
        table.end()
        if is_list(proxies := values.get("trusted_proxies")):
            values["trusted_proxies"] = tuple(proxies)
        return table.make(Limits, values)

    def _read_defaults(self) -> RoutePolicy | None:
        """Return the defaults; None if something is wrong with them."""
        table = self._table.table("defaults", self._defaults)
        if table is None:
            return None
        return self._stock.take(
            "defaults", table.values, lambda: self._policies.read(table, lambda _: "defaults")
        )

    def _auth(self, name: str, table: Table) -> Auth | None:
        """Return an authenticator; which one it is, its keys tell."""
        given = table.values
        if "jwks" in given:
            return self._stock.take(f"auth {name}", given, lambda: _tokens(table))
        if "keys" in given:
            return self._stock.take(f"auth {name}", given, lambda: _api_keys(table))
        self._table.refuse(f"auth.{name}", "needs 'jwks', for tokens, or 'keys', for API keys")
        return None

    def _route(self, table: Table, defaults: RoutePolicy | None) -> Route | None:
        values = table.take(*_ROUTE)
        named = table.take("auth").get("auth")
        name = str([values.get(each) for each in ("host", "path", "methods")])
        policy, laid = self._policy(table, name, defaults)
        table.end()
        to = values.get("to")
        if isinstance(to, str) and "://" not in to and self._core.registry is None:
            table.refuse("to", f"{to!r} is a service, and needs a 'backend' at the top of the file")
        if named is not None and named not in self._auths:
            known = ", ".join(sorted(self._auths)) or "none"
            table.refuse("auth", f"must be the name of an [auth.NAME] ({known}), not {named!r}")
        auth = self._auths.get(named) if isinstance(named, str) else None
        made_of = (values, laid, None if auth is None else id(auth))
        make = partial(
            table.make, Route, {**values, "auth": auth, "policy": policy}, path="/", to="service"
        )
        return self._stock.take(f"route {name}", made_of, make)

    def _policy(
        self, table: Table, name: str, defaults: RoutePolicy | None
    ) -> tuple[RoutePolicy | None, object]:
        """Return the policy of a route, if it has one, and all that it is made of."""
        own = table.table("policy")
        if own is None:
            return None, self._defaults
        laid = own.values if defaults is None else _over(self._defaults, own.values)
        inner = table.table("policy", laid)
        assert inner is not None, "it is a table"
        parts = own.values

        def read() -> RoutePolicy | None:
            return self._policies.read(
                inner, lambda part: f"route {name}" if part in parts else "defaults"
            )

        return self._stock.take(f"policy {name}", laid, read), laid


def _tokens(table: Table) -> JWTAuth | None:
    """Read a JWTAuth: false checks no issuer or audience, a text may be a key set in JSON."""
    values = table.take(*_A_TOKEN, "leeway")
    table.end()
    for name in ("issuer", "audience"):
        if values.get(name) is False:
            values[name] = None
    jwks = values["jwks"]
    if isinstance(jwks, str) and jwks.lstrip().startswith("{"):
        try:
            values["jwks"] = JSON.decode(jwks.encode())
        except CodecError:
            table.refuse("jwks", "must be an address, a table, or a key set in JSON")
            return None
    return table.make(JWTAuth, values, **_A_TOKEN)


def _api_keys(table: Table) -> APIKeyAuth | None:
    values = table.take("keys", "header")
    table.end()
    return table.make(APIKeyAuth, values, keys={"client": "key"})


def _over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a table over another: tables in both are laid over each other, the rest is replaced."""
    laid = {**base, **top}
    for name in base.keys() & top.keys():
        if isinstance(base[name], dict) and isinstance(top[name], dict):
            laid[name] = _over(base[name], top[name])
    return laid
