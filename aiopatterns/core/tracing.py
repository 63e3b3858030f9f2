"""Tracing: the one place where rooms say what they do for whom, and nothing if nobody traces.

A trace follows one request through calls, jobs, messages and HTTP. What it needs of the library is
small: a *span* around each step, and the W3C ``traceparent`` of the step before in whatever is
sent. Rooms say which step it is, in their own words; a :class:`Tracer`, installed once in a
process, makes spans of it::

    room                                  tracer (contrib.opentelemetry, or one of yours)
    Messages("send", "jobs", "mails") --> span, current in this context until its block ends
    traceparent()                     --> goes with the job, the message, the request
    Messages("process", ...,          --> span of the same trace, current in the context of the
             origins=(traceparent,))      work alone
    Request("server", "GET", ...)     --> span of an HTTP request

Without a tracer each step costs one look at a variable: :data:`NO_SPAN` stands for all spans, and
no record is made. The tracer is process-wide state, like the listeners of
:mod:`aiopatterns.core.telemetry` and for the same reason.

Guarantees: tracing never changes what is traced. An error of the tracer is the tracer's to keep;
those that are meant to be used here raise none.

Source: W3C Trace Context; the semantic conventions of OpenTelemetry for messaging and HTTP, whose
words the records use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeAlias, final

from aiopatterns.core.context import correlation_id
from aiopatterns.core.telemetry import Subscription
from aiopatterns.core.validate import function

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = [
    "NO_SPAN",
    "Endpoint",
    "Fact",
    "Messages",
    "Request",
    "Span",
    "Step",
    "Tracer",
    "install_tracer",
    "outgoing_headers",
    "traceparent",
    "tracer",
]


class Messages(NamedTuple):
    """Messages or jobs that are sent, asked with, or processed.

    Attributes:
        verb: ``"send"``, ``"request"`` (sent, and the answer awaited) or ``"process"``.
        system: What carries them: ``"jobs"``, ``"broker"``, ``"stream"`` or ``"outbox"``.
        destination: Queue, topic or stream.
        action: What the system calls it: ``enqueue``, ``publish``, ``append``, ...
        subject: Name of the job, or type of the message, where there is one for all.
        id: Id of the one message, or None.
        template: The pattern by which it was received, if it has wildcards.
        group: The consumer group.
        correlation: Id that joins everything done for one request.
        batch: How many, for those that come together.
        attempt: Which attempt this is, from 1.
        origins: ``traceparent`` of those who sent them, as far as they told.
    """

    verb: Literal["send", "request", "process"]
    system: str
    destination: str
    action: str
    subject: str = ""
    id: str | None = None
    template: str | None = None
    group: str | None = None
    correlation: str | None = None
    batch: int | None = None
    attempt: int = 1
    origins: tuple[str, ...] = ()


class Request(NamedTuple):
    """An HTTP request that is served here, or made from here.

    Attributes:
        side: ``"server"`` or ``"client"``.
        method: In upper case.
        path: Without the query, which may hold what is nobody's business.
        scheme: ``"http"`` or ``"https"``.
        host: The server's name, as the client knows it.
        port: Its port, if it was told.
        origin: ``traceparent`` as received, or None.
    """

    side: Literal["server", "client"]
    method: str
    path: str
    scheme: str = "http"
    host: str = ""
    port: int | None = None
    origin: str | None = None


class Endpoint(NamedTuple):
    """One attempt of a call, at one endpoint of a service.

    Attributes:
        service: The service.
        host: Where the endpoint is.
        port: Its port.
    """

    service: str
    host: str
    port: int


Step: TypeAlias = Messages | Request | Endpoint
Fact: TypeAlias = Literal["id", "route", "status", "outcome"]


class Span(Protocol):
    """A step that is traced: as a block, or begun and ended where no block reaches."""

    def note(self, fact: Fact, value: str | int) -> None:
        """Add what is known only later: an id, a route, a status, or an outcome that is no error."""
        ...

    def activate(self) -> None:
        """Let all that runs in this context be inside of it, for good."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """End it, with the error that it ended with; only the first call counts."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Tracer(Protocol):
    """Makes spans."""

    def start(self, step: Step) -> Span:
        """Begin a span: inside of the current one, or of the origins that ``step`` names."""
        ...

    def traceparent(self) -> str | None:
        """Return the W3C ``traceparent`` of the current span, or None if there is none."""
        ...


@final
class _NoSpan:
    """Stands for every span while nobody traces."""

    __slots__ = ()

    def note(self, fact: Fact, value: str | int) -> None: ...
    def activate(self) -> None: ...
    def end(self, error: BaseException | None = None) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@final
class _Seat:
    """Where the tracer of the process sits."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken: Tracer | None = None


NO_SPAN: Final = _NoSpan()
_seat: Final = _Seat()


def tracer() -> Tracer | None:
    """Return the tracer of this process; ask before making a record for it."""
    return _seat.taken


def traceparent() -> str | None:
    """Return the W3C ``traceparent`` of the current span, or None if nobody traces."""
    found = _seat.taken
    return None if found is None else found.traceparent()


def install_tracer(tracer: Tracer) -> Subscription:
    """Let ``tracer`` make the spans of this process from now on.

    Args:
        tracer: What makes them.

    Returns:
        The subscription; close it to stop.

    Raises:
        RuntimeError: There is a tracer already; a step has one span.
        TypeError: It lacks a method.
    """
    for need in ("start", "traceparent"):
        function(f"tracer.{need}", getattr(tracer, need, None))
    if _seat.taken is not None:
        msg = f"{_seat.taken!r} traces this process already; close its subscription first"
        raise RuntimeError(msg)
    _seat.taken = tracer
    return Subscription(_leave)


def outgoing_headers() -> dict[str, str]:
    """Return the headers that let another service go on with this request.

    ``X-Request-ID`` is the correlation id, ``traceparent`` that of the current span; what is not
    known is left out. For HTTP clients that no instrumentation of their own sees to.

    Example::

        async def fetch(endpoint: ServiceInstance) -> bytes:
            return await get(f"http://{endpoint.address}/users/7", headers=outgoing_headers())
    """
    known = {"X-Request-ID": correlation_id(), "traceparent": traceparent()}
    return {name: value for name, value in known.items() if value is not None}


def _leave() -> None:
    _seat.taken = None
