"""One step as a span of OpenTelemetry, and as a point of a metric.

What the SDK, a processor of spans or the text of an error raises is logged by the standard library's
logger ``aiopatterns`` and dropped: tracing never breaks the work.
"""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from opentelemetry import context as contexts
from opentelemetry.trace import Status, StatusCode, set_span_in_context

from aiopatterns.contrib.otelwords import is_failure
from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Self

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from aiopatterns.contrib.otelwords import Attributes, Words
    from aiopatterns.core.tracing import Fact, Step

__all__ = ["NAMES", "OtelSpan", "log_trouble"]

#: What may be added to a span later, and the attribute that it becomes.
NAMES: Final[Mapping[Fact, str]] = MappingProxyType(
    {
        "id": "messaging.message.id",
        "status": "http.response.status_code",
        "route": "http.route",
        "outcome": "aiopatterns.outcome",
    }
)


@final
class OtelSpan:
    """A span that was started, and what it adds to the metrics when it ends.

    Args:
        span: The span.
        around: The context in which it is current once it is entered.
        step: What it is of.
        words: The same in the words of OpenTelemetry.
        measured: Told the seconds and labels at the end.
    """

    __slots__ = (
        "_around",
        "_began",
        "_ended",
        "_labels",
        "_measured",
        "_name",
        "_span",
        "_step",
        "_token",
    )

    def __init__(
        self,
        span: Span,
        around: Context,
        *,
        step: Step,
        words: Words,
        measured: Callable[[Step, float, Attributes], object],
    ) -> None:
        self._span = span
        self._around = around
        self._step = step
        self._name = words.name
        self._labels = words.labels
        self._measured = measured
        self._began = monotonic()
        self._ended = False
        self._token: Token[Context] | None = None

    def note(self, fact: Fact, value: str | int) -> None:
        """Add what is known only later."""
        try:
            self._note(fact, value)
        except Exception as trouble:
            log_trouble(trouble)

    def _note(self, fact: Fact, value: str | int) -> None:
        self._span.set_attribute(NAMES[fact], value)
        if fact == "route":
            self._span.update_name(f"{self._name} {value}")
        if fact in {"route", "status"}:
            self._labels[NAMES[fact]] = value
        if fact == "status" and is_failure(self._step, int(value)):
            self._labels["error.type"] = str(value)
            self._span.set_attribute("error.type", str(value))
            self._span.set_status(Status(StatusCode.ERROR))

    def activate(self) -> None:
        """Let all that runs in this context be inside of it, for good."""
        self._token = contexts.attach(set_span_in_context(self._span, self._around))

    def end(self, error: BaseException | None = None) -> None:
        """End it; only the first call counts."""
        if self._ended:
            return
        self._ended = True
        try:
            self._close(error)
        except Exception as trouble:
            log_trouble(trouble)

    def _close(self, error: BaseException | None) -> None:
        try:
            if isinstance(error, Exception):
                self._fail(error)
            elif error is not None:
                self._span.set_attribute(NAMES["outcome"], "cancelled")
        finally:
            self._span.end()
            self._measured(self._step, monotonic() - self._began, self._labels)

    def __enter__(self) -> Self:
        """Make it current in this block."""
        self.activate()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put back what was current before, and end it."""
        assert self._token is not None, "it was entered"
        contexts.detach(self._token)
        self.end(exc)

    def _fail(self, error: Exception) -> None:
        kind = type(error)
        name = kind.__qualname__
        if kind.__module__ not in {"builtins", None}:
            name = f"{kind.__module__}.{name}"
        self._labels["error.type"] = name
        self._span.set_attribute("error.type", name)
        self._span.record_exception(error)
        self._span.set_status(Status(StatusCode.ERROR, str(error)))


def log_trouble(trouble: Exception) -> None:
    """Log what was raised, which is no business of the work that is traced."""
    logging.getLogger("aiopatterns").error("a span failed", exc_info=trouble)
