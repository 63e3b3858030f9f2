"""Where a backend is: one URL, taken apart and checked before anything is opened.

====================================================  ==========================================
URL                                                   what it names
====================================================  ==========================================
``memory://``                                         this process
``redis://[[user]:password@]host[:port][/db]``        one server; ``rediss://``: over TLS
``unix://[[user]:password@]/path[?db=0]``             one server on this machine
``redis+sentinel://[...@]host[:port],.../service[/db]``  the master that the Sentinels name
``redis+cluster://[...@]host[:port],...``             a cluster, known from any of these nodes
``embedded://[/path]``                                a private server, as long as it is open
====================================================  ==========================================

Characters of user and password that mean something in a URL are percent-encoded (``@`` is ``%40``,
``/`` is ``%2F``). Options follow as a query: only those of :data:`OPTIONS` are known, and only
where they mean something, so a slip is an error and not a default that is silently in force.

Passwords are never shown: not by an error, not by a repr, not by :attr:`Target.url`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, final
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

__all__ = ["OPTIONS", "SCHEMES", "Address", "Target", "masked", "parse"]

_REDIS: Final = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")
SCHEMES: Final = ("memory", *_REDIS, "embedded")

_TLS: Final = ("rediss", "redis+sentinel", "redis+cluster")
#: Options of the query, and the schemes that know them.
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "db": ("redis", "rediss", "unix", "redis+sentinel"),  # number of the database
        "tls": ("redis+sentinel", "redis+cluster"),  # 1: speak TLS
        "ca": _TLS,  # file with the authorities to trust
        "cert": _TLS,  # file with the client's certificate
        "key": _TLS,  # file with the key of that certificate
        "sentinel_password": ("redis+sentinel",),  # password of the Sentinels themselves
    }
)

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379


class Address(NamedTuple):
    """Where one server listens: a host and a port, or the path of a socket and 0."""

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
        url: The URL, passwords masked.
        addresses: Servers, Sentinels, or nodes to begin with.
        username: The user, or "" for the server's default one.
        password: The password, or "".
        database: Number of the database.
        service: Name of the master among the Sentinels.
        path: Where ``embedded://`` keeps its data; "" for nowhere.
        options: The options of the query.
    """

    scheme: str
    url: str
    addresses: tuple[Address, ...] = ()
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    service: str = ""
    path: str = ""
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme == "rediss" or self.option("tls") == "1"

    def option(self, name: str) -> str:
        """Return the option ``name``, or ""."""
        return dict(self.options).get(name, "")


def masked(url: str) -> str:
    """Return ``url`` with every password in it as ``***``; also a URL that is none."""
    head, mark, rest = url.rpartition("://") if url.count("://") == 1 else ("", "", url)
    authority, at, tail = rest.rpartition("@")
    if at:
        user, colon, _ = authority.partition(":")
        rest = f"{user}{colon and ':***'}@{tail}"
    place, question, query = rest.partition("?")
    shown = "&".join(map(_masked_option, query.split("&")))
    return f"{head}{mark}{place}{question}{shown}"


def parse(url: str) -> Target:
    """Take ``url`` apart.

    Raises:
        TypeError: It is no string.
        ValueError: It names no backend; the message says why, and what is allowed.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a string such as 'redis://localhost:6379', not {type(url)}")
    try:
        if url.partition("://")[0] not in SCHEMES or "://" not in url:
            raise ValueError("no such scheme")
        if not url.isprintable() or " " in url:
            raise ValueError("it has blanks or characters that cannot be printed")
        parts = _split(url)
        return _parsed(url, parts, _options(parts))
    except ValueError as error:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise ValueError(
            f"url must be one of {known} followed by where; not {masked(url)!r}: {error}"
        ) from None


def _split(url: str) -> SplitResult:
    """Split ``url``; what might be a part of a password is not repeated in the error."""
    if "#" in url:
        raise ValueError("a '#' must be written %23")
    try:
        parts = urlsplit(url)
    except ValueError:  # it would show the password
        raise ValueError("what stands before the path cannot be read") from None
    if "@" in parts.path + parts.query:
        raise ValueError("a '/' or '?' in a password must be written %2F or %3F, an '@' %40")
    return parts


def _masked_option(option: str) -> str:
    name, equals, _ = option.partition("=")
    return f"{name}{equals}***" if "password" in name else option


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name, value in options.items():
        if parts.scheme not in OPTIONS.get(name, ()):
            known = [each for each, schemes in OPTIONS.items() if parts.scheme in schemes]
            raise ValueError(f"option {name!r} is none of {', '.join(known) or 'none at all'}")
        if not value or (name == "tls" and value not in {"0", "1"}):
            raise ValueError(f"option {name} must be {'0 or 1' if name == 'tls' else 'given'}")
    return options


def _parsed(url: str, parts: SplitResult, options: Mapping[str, str]) -> Target:
    if parts.scheme == "memory":
        if parts.netloc or parts.path:
            raise ValueError("nothing may follow")
        return Target("memory", url)
    if parts.scheme == "embedded":
        if "@" in parts.netloc:
            raise ValueError("it has no user and no password")
        return Target("embedded", url, path=unquote(parts.netloc + parts.path))
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, _, password = map(unquote, userinfo.partition(":"))
    if username and not password:
        raise ValueError("a user needs a password: user:password@")
    addresses, words = _places(parts, hosts)
    service = words.pop(0) if parts.scheme == "redis+sentinel" and words else ""
    if parts.scheme == "redis+sentinel" and not service:
        raise ValueError("the name of the master must follow: redis+sentinel://host:port/name")
    return Target(
        parts.scheme,
        masked(url),
        addresses=addresses,
        username=username,
        password=password,
        database=_database(parts.scheme, words, options),
        service=service,
        options=tuple(options.items()),
    )


def _places(parts: SplitResult, hosts: str) -> tuple[tuple[Address, ...], list[str]]:
    """Return the servers, and the words of the path that are left."""
    if parts.scheme == "unix":
        path = unquote(hosts + parts.path)
        if not path.strip("/"):
            raise ValueError("the path of a socket must follow")
        return (Address(path),), []
    several = parts.scheme in {"redis+sentinel", "redis+cluster"}
    port = _SENTINEL_PORT if parts.scheme == "redis+sentinel" else _PORT
    addresses = tuple(_address(each, port) for each in hosts.split(","))
    if len(addresses) > 1 and not several:
        raise ValueError("it names one server; for several use redis+cluster or redis+sentinel")
    return addresses, [unquote(each) for each in parts.path.split("/") if each]


def _address(text: str, port: int) -> Address:
    one = urlsplit(f"//{text}")
    if not one.hostname:
        raise ValueError("a host must follow")
    if one.port == 0:
        raise ValueError("a port is 1 to 65535")
    return Address(one.hostname, one.port or port)


def _database(scheme: str, words: list[str], options: Mapping[str, str]) -> int:
    named = [*words, *([options["db"]] if "db" in options else [])]
    if not named:
        return 0
    if len(named) > 1:
        raise ValueError("too much follows the host")
    if scheme == "redis+cluster":
        raise ValueError("a cluster has no numbered databases")
    if not (named[0].isascii() and named[0].isdecimal()):
        raise ValueError(f"the database must be a number >= 0, not {named[0]!r}")
    return int(named[0])
