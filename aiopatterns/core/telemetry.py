"""Events: what the library tells about itself, free when nobody listens.

A pattern asks :func:`listening` and only then builds an event, a frozen record with a dotted,
stable name (``aiopatterns.circuit.opened``) and typed fields. A listener is a plain synchronous
function of one event. It is called *after* the state of the pattern is consistent, in the task in
which the thing happened, so it must be quick and must not wait. An error in a listener is logged
and dropped: telemetry never breaks the work.

The tuple of listeners is process-wide and copied on write, one of the two pieces of process-wide
state of the library (the other is the source of time). structlog is imported with the first
:func:`log_events`, never before.

Example::

    from aiopatterns.core import install_listener, log_events

    subscription = install_listener(log_events())
    ...
    subscription.close()
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, TypeAlias, final

from aiopatterns.core.validate import function

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

__all__ = [
    "Event",
    "Listener",
    "Subscription",
    "emit",
    "install_listener",
    "listen",
    "listening",
    "log_events",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. Subclasses are frozen slots dataclasses that set ``name``.

    ``level`` is the log level that :func:`log_events` uses: ``debug``, ``info``, ``warning`` or
    ``error``.
    """

    name: ClassVar[str] = "aiopatterns.event"
    level: ClassVar[str] = "info"


Listener: TypeAlias = "Callable[[Event], object]"


class Logger(Protocol):
    """What :func:`log_events` needs of a logger: structlog's ``info`` and its siblings."""

    def debug(self, event: str, /, **fields: object) -> object: ...
    def info(self, event: str, /, **fields: object) -> object: ...
    def warning(self, event: str, /, **fields: object) -> object: ...
    def error(self, event: str, /, **fields: object) -> object: ...


_LEVELS: Final = ("debug", "info", "warning", "error")
_listeners: tuple[Listener, ...] = ()


def listening() -> bool:
    """Whether anybody listens; ask before building an event."""
    return bool(_listeners)


def emit(event: Event) -> None:
    """Give ``event`` to every listener, in the order of installation.

    An error raised by a listener is logged by the standard library's logger ``aiopatterns`` and
    dropped.
    """
    for listener in _listeners:
        try:
            listener(event)
        except Exception:
            logging.getLogger("aiopatterns").exception("a listener failed on %s", event.name)


@final
class Subscription:
    """A listener's, handler's or callback's place; :meth:`close` gives it up.

    Args:
        cancel: Called once, by the first close.

    Closing twice is allowed. Also a context manager that closes on exit.
    """

    __slots__ = ("_cancel",)

    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel: Callable[[], object] | None = cancel

    def close(self) -> None:
        """End the subscription; harmless if it has ended."""
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()

    def __enter__(self) -> Self:
        """Return this subscription."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the subscription."""
        self.close()


def install_listener(listener: Listener) -> Subscription:
    """Call ``listener`` with every event of the process from now on.

    Args:
        listener: A synchronous function of one event. Installed twice, it is called twice.

    Returns:
        The subscription; close it to stop.

    Raises:
        TypeError: ``listener`` is no function, or an async one.
    """
    global _listeners  # noqa: PLW0603 - the one seam of telemetry
    if inspect.iscoroutinefunction(function("listener", listener)):
        msg = f"listener must be a plain function, not the async {listener!r}"
        raise TypeError(msg)
    _listeners = (*_listeners, listener)
    return Subscription(lambda: _uninstall(listener))


def listen(listener: Listener) -> Subscription:
    """Call ``listener`` with every event inside a ``with`` block (for tests)."""
    return install_listener(listener)


def _uninstall(listener: Listener) -> None:
    """Remove one installation of exactly this function, and no equal one."""
    global _listeners  # noqa: PLW0603 - the one seam of telemetry
    at = next(at for at, each in enumerate(_listeners) if each is listener)
    _listeners = (*_listeners[:at], *_listeners[at + 1 :])


def log_events(logger: Logger | None = None) -> Listener:
    """Make a listener that logs every event with its name and fields.

    Args:
        logger: A structlog logger; by default ``structlog.get_logger("aiopatterns")``.

    Returns:
        The listener, for :func:`install_listener`.

    Raises:
        TypeError: ``logger`` lacks a method for one of the levels.
    """
    sink = _structlog_logger() if logger is None else logger
    for level in _LEVELS:
        function(f"logger.{level}", getattr(sink, level, None))

    def log(event: Event) -> None:
        values = {each.name: getattr(event, each.name) for each in fields(event)}
        getattr(sink, event.level)(event.name, **values)

    return log


def _structlog_logger() -> Logger:
    import structlog  # 60 ms that only those who log pay

    logger: Logger = structlog.get_logger("aiopatterns")
    return logger
