"""Remote errors: what a handler raised, as its caller on the other side sees it.

An exception of one process means nothing in another, so what travels is what a caller can act on:
the name of its type, its text, a stable code, whether trying again may help, and plain details.
The traceback stays where it happened.

An error says these things by attributes, if it has them: ``code`` (text), ``retryable`` (bool) and
``details`` (a mapping of plain data). Without ``retryable``, refusals, timeouts and outages are
worth another try, and nothing else is. A :class:`~aiopatterns.core.errors.RemoteError` that a
handler raises, or lets pass from a service that it asked itself, travels as it is.

Any error can be described: of one whose own methods fail, or that says what cannot be written, the
rest travels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast, final

import msgspec

from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import (
    BackendUnavailableError,
    CodecError,
    RejectedError,
    RemoteError,
    RetryLater,
)

__all__ = ["LOST", "described", "lost_handler", "raised"]

#: The code of a request whose handler's process has gone.
LOST: Final = "handler_lost"

# Texts are for people; more of them than this helps nobody.
_LONGEST: Final = 4_096
_PASSING: Final = (
    RejectedError,
    TimeoutError,
    ConnectionError,
    BackendUnavailableError,
    RetryLater,
)


@final
class _Described(msgspec.Struct, frozen=True, array_like=True):
    """An error on the wire; new fields go to the end."""

    type: str
    message: str
    code: str | None = None
    retryable: bool = False
    details: dict[str, Any] = {}


_described_of = MSGPACK.decoder(_Described)


def described(error: BaseException) -> bytes:
    """Return ``error`` as bytes; what cannot be had of it, or not be encoded, stays behind."""
    code = _attribute(error, "code")
    retryable = _attribute(error, "retryable")
    told = _Described(
        _writable(_type_of(error)),
        _writable(_text_of(error)[:_LONGEST]),
        _writable(code) if isinstance(code, str) else None,
        retryable if isinstance(retryable, bool) else isinstance(error, _PASSING),
        _plain(_attribute(error, "details")),
    )
    try:
        return MSGPACK.encode(told)
    except CodecError:
        return MSGPACK.encode(msgspec.structs.replace(told, details={}))


def raised(data: bytes) -> RemoteError:
    """Return the error that ``data`` describes.

    Raises:
        CodecError: It describes none.
    """
    told = _described_of(data)
    return RemoteError(
        told.message,
        type=told.type,
        code=told.code,
        retryable=told.retryable,
        details=told.details,
    )


def lost_handler(topic: str) -> RemoteError:
    """Return the error of a request whose handler's process has gone."""
    return RemoteError(
        f"the process that handled {topic!r} has gone; it may have run",
        type="HandlerLost",
        code=LOST,
        retryable=True,
    )


def _attribute(error: BaseException, name: str) -> object:
    try:
        return getattr(error, name, None)
    except Exception:
        return None


def _plain(details: object) -> dict[str, Any]:
    if not isinstance(details, Mapping):
        return {}
    try:
        return {str(key): value for key, value in cast("Mapping[object, Any]", details).items()}
    except Exception:
        return {}


def _type_of(error: BaseException) -> str:
    remote = error.type if isinstance(error, RemoteError) else ""
    return remote or type(error).__name__


def _text_of(error: BaseException) -> str:
    """Return the text of an error, also if its own method fails."""
    try:
        return str(error.message if isinstance(error, RemoteError) else error)
    except Exception as other:
        return f"its text cannot be had: {type(other).__name__}"


def _writable(text: str) -> str:
    """Escape what UTF-8 cannot hold: halves of characters, as in odd names of files."""
    return text.encode(errors="backslashreplace").decode()
