"""Guard: who may look at a dashboard at all, and what a browser may do with what it gets.

Every request passes here, before anything of the application sees it::

    request --> Host known? --> from this page? --> token? --> application --> headers --> answer
                 403             403                 401

=====================  =========================================================================
against                by
=====================  =========================================================================
whoever reaches it     a token of 256 bits, once in the address, then in a cookie that scripts
                       cannot read (``HttpOnly``) and other sites do not send (``SameSite``)
DNS rebinding          a list of allowed names in ``Host``
forged requests        ``Sec-Fetch-Site`` and ``Origin``, and a header that no form can send
scripts in the page    a policy without inline code, without another host
clickjacking           ``frame-ancestors 'none'``
leaks                  no ``Referer``, nothing stored by caches, the token redirected away
=====================  =========================================================================

The token is compared in constant time, and is in no repr, no error and no event.

Source: OWASP cheat sheets (CSRF, clickjacking, CSP); CVE-2022-30034 (flower: open by default).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final
from urllib.parse import parse_qs, urlsplit

from aiopatterns.core.codec import JSON
from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    Scope: TypeAlias = MutableMapping[str, Any]
    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["ACTION_HEADER", "LOCAL", "Guard"]

#: Names of this machine, which a browser resolves by itself.
LOCAL: Final = ("127.0.0.1", "localhost", "::1")
#: Must be there, and "1", in what changes something.
ACTION_HEADER: Final = "x-aiopatterns-action"
_SAFE: Final = ("GET", "HEAD")
_MIN_TOKEN: Final = 16
_POLICY: Final = (
    b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    b" object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_NO_STORE: Final = (b"cache-control", b"no-store")


class Refusal(NamedTuple):
    """Why a request goes no further."""

    status: int
    error: str


@final
class Guard:
    """Stands before an application.

    Args:
        app: The application.
        token: Who has it may look.
        hosts: Names that a request may be for, without a port.

    Raises:
        ValueError: The token is too short; it is not shown.
    """

    __slots__ = ("_app", "_cookie", "_hosts", "_token")

    def __init__(self, app: ASGIApp, *, token: str, hosts: Iterable[str] = ()) -> None:
        self._app = app
        if not isinstance(token, str):
            msg = f"token must be a string, not {type(token).__name__}"
            raise TypeError(msg)
        if len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable():
            msg = f"token must be at least {_MIN_TOKEN} printable characters, not {len(token)}"
            raise ValueError(msg)
        if set(token) & set(' ",;\\'):
            msg = "token must have no blanks, quotes, commas, semicolons and backslashes"
            raise ValueError(msg)
        self._token = token.encode()
        self._hosts = frozenset(text("hosts", each).lower() for each in (*LOCAL, *hosts))
        # Cookies know no ports: dashboards side by side must not take each other's.
        self._cookie = f"aiopatterns-{hashlib.sha256(self._token).hexdigest()[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or let it through and dress its answer."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _headers_of(scope)
        root = scope.get("root_path", "")
        is_page = scope["path"].removeprefix(root) in {"", "/"}
        refusal = self._foreign(scope["method"], headers, is_page=is_page)
        if refusal is None and is_page and self._presents_token(scope):
            await self._welcome(scope, root, send)
            return
        if refusal is None and not self._has_cookie(headers.get("cookie", "")):
            refusal = Refusal(401, "open the address with the token that the dashboard has printed")
        if refusal is not None:
            await _refuse(refusal, send)
            return
        await self._app(scope, receive, _dressed(send))

    def _foreign(self, method: str, headers: dict[str, str], *, is_page: bool) -> Refusal | None:
        """Return why a request is not from this page, or not for this machine."""
        host = headers.get("host", "")
        if _name_of(host) not in self._hosts:
            return Refusal(403, "this Host is not allowed; add it with --allow-host")
        site = headers.get("sec-fetch-site")
        if method in _SAFE:
            # Another port of this machine is the same site, so it is sent the cookie.
            strange = not is_page and site in {"same-site", "cross-site"}
            return Refusal(403, "only the page itself may ask") if strange else None
        if headers.get(ACTION_HEADER) != "1":
            return Refusal(403, "the header X-Aiopatterns-Action: 1 is missing")
        origin = headers.get("origin")
        if site is None and origin is None:
            return Refusal(403, "neither Origin nor Sec-Fetch-Site tells where this is from")
        if site not in {None, "same-origin"}:
            return Refusal(403, "actions are taken from the page itself only")
        if origin is not None and _netloc(origin) != host.lower():
            return Refusal(403, "actions are taken from the page itself only")
        return None

    def _presents_token(self, scope: Scope) -> bool:
        """Whether the page is asked for with the right token in its address."""
        if scope["method"] not in _SAFE:
            return False
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        return any(self._is_token(each) for each in given)

    def _has_cookie(self, header: str) -> bool:
        for each in header.split(";"):
            name, _, value = each.strip().partition("=")
            if name == self._cookie and self._is_token(value):
                return True
        return False

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    async def _welcome(self, scope: Scope, root: str, send: Send) -> None:
        """Give the cookie, and send the browser on to an address without the token."""
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = (
            f"{self._cookie}={self._token.decode()}; Path={root or '/'}; HttpOnly;"
            f" SameSite=Strict{secure}"
        )
        headers = [
            (b"location", f"{root}/".encode("latin-1")),
            (b"set-cookie", cookie.encode()),
            (b"content-length", b"0"),
            _NO_STORE,
            *_HEADERS,
        ]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers of a request by their names; those that come several times, joined."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name, told = raw.decode("latin-1").lower(), value.decode("latin-1")
        found[name] = f"{found[name]}; {told}" if name in found else told
    return found


def _name_of(host: str) -> str:
    """Return the name in a Host header, without its port; empty if it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host else ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    """Return host and port of an origin; empty if it is none."""
    return origin.lower().partition("://")[2]


def _dressed(send: Send) -> Send:
    """Return ``send`` with the headers that every answer has."""

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), *_HEADERS]
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append(_NO_STORE)
            message = {**message, "headers": headers}
        await send(message)

    return dressed


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = JSON.encode({"error": refusal.error})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        _NO_STORE,
        *_HEADERS,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
