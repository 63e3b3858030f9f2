"""Where a backend is: one URL, taken apart and checked before anything is opened.

====================================  ==============================================================
URL                                   what it names
====================================  ==============================================================
``memory://``                         this process
``redis://[[user]:password@]host[:port][/db]``   one server; ``rediss://`` the same over TLS
``unix://[[user]:password@]/path[?db=0]``        one server on this machine
``redis+sentinel://[...@]host[:port],.../service[/db]``  the master that these Sentinels name
``redis+cluster://[...@]host[:port],...``        a cluster, known from any of these nodes
``embedded://[/path]``                a private server that lives as long as the backend is open
====================================  ==============================================================

User and password are percent-encoded where they hold ``@ : / ?``. Options follow as a query, and
only those in :data:`OPTIONS` are known; a slip of the pen in one is an error here and not a
default that is silently in force.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPTIONS", "SCHEMES", "Address", "Target", "masked", "parse"]

SCHEMES: Final = (
    "memory",
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "redis+cluster",
    "embedded",
)

#: Options of the query, and what they mean.
OPTIONS: Final[Mapping[str, str]] = {
    "db": "number of the database (redis, rediss, unix, redis+sentinel)",
    "tls": "1: speak TLS (redis+sentinel, redis+cluster)",
    "ca": "file with the certificates to trust (TLS)",
    "cert": "file with the client's certificate (TLS)",
    "key": "file with the key of that certificate (TLS)",
    "sentinel_password": "password of the Sentinels (redis+sentinel)",
}

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379


class Address(NamedTuple):
    """Where one server listens: a host and a port, or the path of a socket."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@final
@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL.

    Args:
        scheme: One of :data:`SCHEMES`.
        url: The URL with its passwords masked.
        addresses: Servers, Sentinels or nodes to begin with.
        username: The user, or "" for the server's default one.
        password: The password, or "".
        database: Number of the database.
        service: Name of the master among Sentinels.
        path: Where ``embedded://`` keeps its data; "" for nowhere.
        options: The options of the query.
    """

    scheme: str
    url: str
    addresses: tuple[Address, ...] = ()
    username: str = ""
    password: str = ""
    database: int = 0
    service: str = ""
    path: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme == "rediss" or self.option("tls") == "1"

    def option(self, name: str) -> str:
        """Return the option ``name`` or ""."""
        return dict(self.options).get(name, "")


def masked(url: str) -> str:
    """Return ``url`` with every password in it replaced by ``***``."""
    head, mark, rest = url.partition("://")
    if not mark:
        return url
    authority, at, tail = rest.rpartition("@")
    if at:
        user, colon, _ = authority.partition(":")
        rest = f"{user}{colon and ':***'}@{tail}"
    place, question, query = rest.partition("?")
    if question:
        query = "&".join(_masked_option(each) for each in query.split("&"))
    return f"{head}{mark}{place}{question}{query}"


def parse(url: str) -> Target:
    """Take ``url`` apart.

    Raises:
        TypeError: It is no string.
        ValueError: It is no URL of a backend; the message says what is allowed.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a string such as 'redis://localhost:6379', not {url!r}")
    scheme, mark, _ = url.partition("://")
    if not mark or scheme not in SCHEMES:
        raise _refused(url, "no scheme that is known")
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        return _target(url, parts, options)
    except ValueError as error:
        raise _refused(url, str(error)) from None


def _refused(url: str, why: str) -> ValueError:
    known = ", ".join(f"{each}://" for each in SCHEMES)
    return ValueError(f"url must be one of {known}; {masked(url)!r} is not: {why}")


def _masked_option(option: str) -> str:
    name, equals, _ = option.partition("=")
    return f"{name}{equals}***" if "password" in name else option


def _target(url: str, parts: SplitResult, options: Mapping[str, str]) -> Target:
    for name in options:
        if name not in OPTIONS:
            raise ValueError(f"option {name!r} is not one of {', '.join(OPTIONS)}")
    if parts.scheme == "memory":
        if url != "memory://":
            raise ValueError("nothing may follow memory://")
        return Target("memory", url)
    if parts.scheme == "embedded":
        return Target("embedded", url, path=unquote(parts.netloc + parts.path))
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    path = [unquote(each) for each in parts.path.strip("/").split("/") if each]
    service = ""
    if parts.scheme == "unix":
        addresses: tuple[Address, ...] = (Address(unquote(parts.path)),)
        path = []
    else:
        port = _SENTINEL_PORT if parts.scheme == "redis+sentinel" else _PORT
        addresses = tuple(_address(each, port) for each in hosts.split(","))
    if parts.scheme == "redis+sentinel":
        service = path.pop(0) if path else ""
    database = options.get("db") or (path.pop(0) if path else "0")
    return Target(
        parts.scheme,
        masked(url),
        addresses,
        unquote(user),
        unquote(password),
        int(database),
        service,
        options=tuple(options.items()),
    )


def _address(text: str, port: int) -> Address:
    one = urlsplit(f"//{text}")
    return Address(one.hostname or "localhost", one.port or port)
