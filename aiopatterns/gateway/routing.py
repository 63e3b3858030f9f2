"""Routes: which service a request is for, by host, then by the longest prefix, then by method.

::

    host       exact name  >  *.suffix, the longest first  >  any
    path       the longest prefix in whole segments: /api/users for /api/users/7, not for /api/usersx
    method     one of the route's; another is answered with 405 and Allow

Routes of one host and prefix share it by their methods. A host whose routes do not match leaves the
request to the less exact ones; a prefix that matches with another method does not.

Compiled, the routes are a trie of segments for each host: one look-up for each segment, as many as
the deepest route has, however many routes there are.

Source: the order is that of Traefik's and Envoy's defaults without regular expressions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, final
from urllib.parse import urlsplit

from aiopatterns.cluster.instance import service_name
from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.core.validate import async_function, instance, text
from aiopatterns.gateway.paths import checked_path
from aiopatterns.gateway.policy import RoutePolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiopatterns.gateway.auth import Auth
    from aiopatterns.gateway.request import Request, Response

__all__ = ["Aggregate", "Route", "Router", "checked_url"]

T = TypeVar("T")

Aggregate: TypeAlias = "Callable[[Request], Awaitable[Response | Mapping[str, Any]]]"
"""A route that is a function: it makes an answer of those of several services."""

_METHOD: Final = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_HOST: Final = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]{0,253}[a-z0-9])?|\[[0-9a-f:.]+\]")
_SCHEMES: Final = ("http", "https")


@final
class Route:
    """Where requests with a certain beginning of their path go.

    Args:
        path: The prefix, decoded, in whole segments: ``"/api/users"`` or ``"/"``.
        to: Name of a service in the registry, a base URL such as ``"http://10.0.0.7:8000/v2"``, or an
            async function of a :class:`~aiopatterns.gateway.Request` that returns a
            :class:`~aiopatterns.gateway.Response`, or a mapping, which becomes JSON.
        methods: Those it takes; None for all. ``GET`` takes ``HEAD`` as well.
        host: Name of the host, or ``"*.example.org"`` for all below; None for any.
        strip_prefix: Whether the service sees the path without the prefix.
        auth: Who may use it; None for everybody.
        policy: What may happen to its requests; None for the gateway's defaults.

    Raises:
        ValueError: A value is none of these.
        TypeError: A value is of another type.
    """

    __slots__ = ("auth", "host", "methods", "path", "policy", "strip_prefix", "to")

    def __init__(
        self,
        path: str,
        *,
        to: str | Aggregate,
        methods: Iterable[str] | None = None,
        host: str | None = None,
        strip_prefix: bool = False,
        auth: Auth | None = None,
        policy: RoutePolicy | None = None,
    ) -> None:
        self.path: str = _prefix(path)
        self.to: str | Aggregate = _target(to)
        self.methods: frozenset[str] | None = _methods(methods)
        self.host: str | None = None if host is None else _host(host)
        self.strip_prefix: bool = instance("strip_prefix", strip_prefix, bool, "True or False")
        self.auth: Auth | None = auth
        self.policy: RoutePolicy | None = policy
        if policy is not None:
            instance("policy", policy, RoutePolicy, "None or a RoutePolicy")

    def __repr__(self) -> str:
        host = "" if self.host is None else f", host={self.host!r}"
        return f"Route({self.path!r}, to={self.to!r}{host})"

    @property
    def segments(self) -> list[str]:
        """The prefix in segments."""
        return [each for each in self.path.split("/") if each]


@final
class Router(Generic[T]):
    """Finds what belongs to a request; made of routes and what each leads to.

    Args:
        routes: Pairs of a route and what it leads to.

    Raises:
        ValueError: Two routes are for the same host, prefix and method.
    """

    __slots__ = ("_any", "_exact", "_suffixes")

    def __init__(self, routes: Iterable[tuple[Route, T]]) -> None:
        hosts: dict[str | None, _Node[T]] = {None: _Node()}
        for route, end in routes:
            hosts.setdefault(route.host, _Node()).add(route, end)
        self._any = hosts.pop(None)
        self._exact = {host: node for host, node in hosts.items() if host and host[0] != "*"}
        wild = [(host[1:], node) for host, node in hosts.items() if host and host[0] == "*"]
        self._suffixes = sorted(wild, key=lambda each: -len(each[0]))

    def match(self, host: str, path: str, method: str) -> T:
        """Return what belongs to a request.

        Args:
            host: Lower-case, without a port.
            path: Decoded, as :func:`~aiopatterns.gateway.paths.checked_path` returns it.
            method: In upper case.

        Raises:
            RequestRefusedError: There is no route (404), or none for this method (405).

        Complexity: O(segments of the deepest route), and O(hosts with ``*``).
        """
        if self._exact and (node := self._exact.get(host)) and (found := node.find(path)):
            return found.take(method)
        for suffix, node in self._suffixes:
            if host.endswith(suffix) and (found := node.find(path)):
                return found.take(method)
        found = self._any.find(path)
        if found is None:
            raise RequestRefusedError("there is nothing here", status=404)
        return found.take(method)


@final
class _Node(Generic[T]):
    """A segment of the trie: those that follow, and the routes that end here, by method."""

    __slots__ = ("_all", "_methods", "below", "ends")

    def __init__(self) -> None:
        self.below: dict[str, _Node[T]] = {}
        self.ends: bool = False
        self._methods: dict[str, T] = {}
        self._all: list[T] = []  # the route of all other methods, if there is one

    def add(self, route: Route, end: T) -> None:
        node = self
        for segment in route.segments:
            node = node.below.setdefault(segment, _Node())
        node.put(route, end)

    def find(self, path: str) -> _Node[T] | None:
        """Return the deepest node of ``path`` that has routes."""
        node: _Node[T] | None = self
        found = self if self.ends else None
        at = 1
        while node is not None and node.below:
            until = path.find("/", at)
            node = node.below.get(path[at:] if until < 0 else path[at:until])
            if node is not None and node.ends:
                found = node
            if until < 0:
                break
            at = until + 1
        return found

    def take(self, method: str) -> T:
        """Return the route of ``method``."""
        end = self._methods.get(method)
        if end is not None:
            return end
        if self._all:
            return self._all[0]
        allow = ", ".join(sorted(self._methods)).encode()
        raise RequestRefusedError(
            "this method is not allowed here", status=405, headers=[(b"allow", allow)]
        )

    def put(self, route: Route, end: T) -> None:
        self.ends = True
        taken = self._all if route.methods is None else route.methods & self._methods.keys()
        if taken:
            host = "" if route.host is None else f" of {route.host}"
            msg = f"routes must differ, but two are for {route.path!r}{host} and the same methods"
            raise ValueError(msg)
        if route.methods is None:
            self._all.append(end)
        else:
            self._methods.update(dict.fromkeys(route.methods, end))


def checked_url(name: str, value: str) -> str:
    """Return ``value`` if it is a base URL: scheme, host, and maybe a port and a path.

    Raises:
        ValueError: It is none.
    """
    try:
        url = urlsplit(value)
        good = url.scheme in _SCHEMES and url.hostname and url.port != 0
        checked_path(url.path.encode() or b"/")
    except (ValueError, RequestRefusedError):
        good = False
        url = urlsplit("")
    if not good or url.query or url.fragment or url.username is not None:
        msg = (
            f"{name} must be a base URL, as in 'http://10.0.0.7:8000', without a user, a query or a"
            f" fragment, not {value!r}"
        )
        raise ValueError(msg)
    return value


def _prefix(path: str) -> str:
    text("path", path)
    trimmed = path.rstrip("/") or "/"
    dotted = {".", ".."} & set(trimmed.split("/"))
    if not path.startswith("/") or "//" in trimmed or dotted or not _is_plain(trimmed):
        msg = (
            f"path must begin with a slash and be decoded and plain, as '/api/users', not {path!r}"
        )
        raise ValueError(msg)
    return trimmed


def _is_plain(path: str) -> bool:
    return path.isprintable() and not any(each in path for each in "\\?#%*{}")


def _target(to: str | Aggregate) -> str | Aggregate:
    if not isinstance(to, str):
        if not callable(to):
            msg = f"to must be a service name, a base URL or an async function, not {to!r}"
            raise TypeError(msg)
        return async_function("to", to)
    if "://" in to:
        return checked_url("to", to)
    return service_name("to", to)


def _methods(methods: Iterable[str] | None) -> frozenset[str] | None:
    if methods is None:
        return None
    if isinstance(methods, str):
        msg = f"methods must be several, as in ['GET'], not the text {methods!r}"
        raise TypeError(msg)
    found = {text("methods", each) for each in methods}
    wrong = next((each for each in sorted(found) if not _METHOD.fullmatch(each)), None)
    if wrong is not None or not found:
        msg = f"methods must be names in upper case, as in ['GET'], not {wrong or methods!r}"
        raise ValueError(msg)
    return frozenset(found | {"HEAD"}) if "GET" in found else frozenset(found)


def _host(host: str) -> str:
    lowered = text("host", host).lower()
    if not _HOST.fullmatch(lowered):
        msg = f"host must be a name, or '*.' and a name, without a port, not {host!r}"
        raise ValueError(msg)
    return lowered
