"""What happens inside a worker process, and the frames that both sides exchange.

:class:`~aiopatterns.flow.executors.Processes` starts a process and gives it one end of a socket
pair. The process answers one frame at a time until the other end is closed::

    parent                                   worker process
      |  <----------- ready, or the initializer's error ---  initializer()
      |  --- (function, arguments) ---------------------->
      |  <----------- (True, value) or (False, error) ----  function(*arguments)
      |  --- end of stream ------------------------------>   leaves, cleanly

A frame is eight bytes of length and what :mod:`multiprocessing` makes of the message (a pickle).
Both ends belong to one program and to one user, and the socket pair has no name, so nobody else can
write to it.

Guarantees of a worker process:

* It ends when the parent's end of the pair is closed, and at once, also in the middle of a call,
  when the parent is dead.
* An error travels as itself with the worker's traceback, causes included, as a note; one that
  cannot travel arrives as :class:`~aiopatterns.core.errors.RemoteError` with its type's name.
* It ignores Ctrl-C, which a terminal sends to the whole group: the parent decides what ends.

What is no ``Exception``, such as ``SystemExit`` or ``KeyboardInterrupt``, is no answer: the process
ends, which the parent sees as a crash.
"""

from __future__ import annotations

import os
import signal
import struct
import threading
import traceback
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

from aiopatterns.core.errors import RemoteError
from aiopatterns.core.notes import note

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["HEADER", "named", "pack_call", "serve", "unpack_reply"]

HEADER: Final = struct.Struct("!Q")
"""The length of what follows."""

_PROTOCOL: Final = -1  # the newest that this interpreter has; both sides are the same one
_SHORT: Final = 80


def pack_call(fn: Callable[..., object], args: tuple[object, ...]) -> bytes:
    """Return the frame that asks a worker process for ``fn(*args)``.

    Raises:
        TypeError: The function or an argument cannot be pickled; the text names which one.
    """
    try:
        return _framed((fn, args))
    except Exception as error:
        raise TypeError(_culprit(fn, args, error)) from error


def _read(body: bytes | bytearray | memoryview) -> Any:
    """Undo :func:`_framed`, without the length."""
    from multiprocessing.reduction import ForkingPickler

    return cast("Any", ForkingPickler).loads(body)  # typeshed takes this function for a method


def unpack_reply(body: memoryview) -> object:
    """Return what the function returned, or raise what it raised.

    Raises:
        Exception: The function's error, or the reason why its answer cannot be read here.
    """
    done, value = _read(body)
    if done:
        return value
    raise value


def serve(link: socket.socket, initializer: Callable[[], object] | None) -> None:
    """Answer calls until the parent hangs up; the main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True, name="end-with-parent").start()
    try:
        link.setblocking(True)
        link.sendall(_answer(initializer or _nothing, ()))
        while (body := _received(link)) is not None:
            link.sendall(_answer_frame(body))
    except ConnectionError:
        return  # the parent does not wait for the answer any more


def _answer_frame(body: bytearray) -> bytes:
    """Do what a frame asks for."""
    try:
        fn, args = _read(body)
    except Exception as error:
        refusal = TypeError(
            "the call cannot be read in the worker process, where what it names must be "
            f"importable: {_message(error)}"
        )
        return _refusal(_traced(refusal, error))
    return _answer(fn, args)


def _answer(fn: Callable[..., object], args: tuple[object, ...]) -> bytes:
    """Call, and pack the value or the error."""
    try:
        value = fn(*args)
    except Exception as error:
        return _refusal(_traced(error, error))
    try:
        return _framed((True, value))
    except Exception as error:
        text = f"what {named(fn)} returned cannot be sent between processes: {_message(error)}"
        return _refusal(TypeError(text))


def _refusal(error: Exception) -> bytes:
    """Pack an error, or what stands for it if it does not survive pickling."""
    try:
        frame = _framed((False, error))
        _read(frame[HEADER.size :])
    except Exception:
        substitute = RemoteError(_message(error), type=type(error).__name__)
        for each in getattr(error, "__notes__", ()):
            substitute.add_note(each)
        return _framed((False, substitute))
    return frame


def _traced(error: Exception, cause: Exception) -> Exception:
    """Note on ``error`` where ``cause`` was raised, and from what; tracebacks do not travel."""
    where = "".join(traceback.format_exception(cause)).rstrip()
    note(error, f"in worker process {os.getpid()}:\n{where}")
    return error


def _message(error: Exception) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"its message cannot be made: {broken!r:.80}"


def _framed(message: object) -> bytes:
    body = _pickled(message)
    return HEADER.pack(len(body)) + body


def _pickled(value: object) -> memoryview:
    from multiprocessing.reduction import ForkingPickler  # only processes need multiprocessing

    return ForkingPickler.dumps(value, _PROTOCOL)


def _received(link: socket.socket) -> bytearray | None:
    """Read one frame's body; None at the end of the stream."""
    header = _exactly(link, HEADER.size)
    if header is None:
        return None
    return _exactly(link, HEADER.unpack(header)[0])


def _exactly(link: socket.socket, size: int) -> bytearray | None:
    """Read ``size`` bytes; None if the stream ends before."""
    buffer = bytearray(size)
    rest = memoryview(buffer)
    while rest:
        read = link.recv_into(rest)
        if not read:
            return None
        rest = rest[read:]
    return buffer


def _end_with_parent() -> None:
    """Wait for the parent's death, then end at once: nobody is left to answer to."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker process has a parent"
    parent.join()
    os._exit(1)


def _nothing() -> None:
    """The initializer of those who have none."""


def _culprit(fn: Callable[..., object], args: tuple[object, ...], error: Exception) -> str:
    """Say what of a call cannot be pickled."""
    if (reason := _unpicklable(fn)) is not None:
        return (
            f"{named(fn)} cannot be sent to a worker process: it must be importable, "
            f"so define it at the top level of a module ({reason})"
        )
    for position, each in enumerate(args, 1):
        if (reason := _unpicklable(each)) is not None:
            where = (
                "; define it at the top level of a module" if isinstance(each, FunctionType) else ""
            )
            return (
                f"argument {position} of {named(fn)} cannot be sent to a worker process: "
                f"{_shortened(each)} ({reason}){where}"
            )
    return f"the call of {named(fn)} cannot be sent to a worker process ({error})"


def _unpicklable(value: object) -> str | None:
    try:
        _pickled(value)
    except Exception as error:
        return str(error)
    return None


def named(fn: Any) -> str:
    """Return how a text calls a function."""
    return getattr(fn, "__qualname__", None) or _shortened(fn)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."
