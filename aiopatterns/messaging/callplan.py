"""Call plans: how a handler is called, found out once and not with every message.

::

    message --> payload as the annotation says --> policies --> handler(ctx?, payload?)
                     |                                              async: on this loop
                     `-- does not fit: RemoteError, code bad_payload  plain: in a thread

What a handler takes is read from its signature: ``ctx: Context`` first, if it wants that, then the
payload, if it wants that. Of two parameters the first is the context, also without an annotation.
Types are resolved when the service starts, so they may be defined below
the handler.
"""

from __future__ import annotations

from functools import partial
from inspect import Parameter, isasyncgenfunction, isgeneratorfunction, signature
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from aiopatterns.core.annotations import POSITIONAL, makeable, resolved, wants_context
from aiopatterns.core.errors import RemoteError
from aiopatterns.core.threads import call_in_thread
from aiopatterns.core.validate import is_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiopatterns.messaging.context import Context
    from aiopatterns.resilience.policy import Policy

__all__ = ["BAD_PAYLOAD", "CallPlan", "Shape"]

#: The code of a payload that does not fit the handler.
BAD_PAYLOAD: Final = "bad_payload"


@final
class Shape:
    """What a handler takes and gives, as far as its signature says.

    Args:
        fn: The handler.
        payload: Whether there is a payload to take.

    Raises:
        TypeError: It needs arguments that a message does not have, or is a generator.
    """

    __slots__ = ("_fn", "_parameter", "_returns", "takes_context", "takes_payload")

    def __init__(self, fn: Callable[..., object], *, payload: bool) -> None:
        if isgeneratorfunction(fn) or isasyncgenfunction(fn):
            msg = f"a handler returns its answer; {_name(fn)} is a generator"
            raise TypeError(msg)
        self._fn = fn
        whole = signature(fn)
        parameters = list(whole.parameters.values())
        self.takes_context: bool = bool(parameters) and (
            wants_context(fn, parameters[0]) or _is_bare_context(parameters, payload=payload)
        )
        if self.takes_context:
            del parameters[0]
        self.takes_payload: bool = payload and bool(parameters) and _may_take(parameters[0])
        self._parameter = parameters.pop(0) if self.takes_payload else None
        for each in parameters:
            if _is_needed(each):
                takes = "handler(payload) or handler(ctx, payload)" if payload else "handler(ctx)"
                msg = f"a handler is called as {takes}; {_name(fn)} needs {each.name!r} as well"
                raise TypeError(msg)
        self._returns = whole.return_annotation

    def payload_type(self) -> Any:
        """What the payload is; None for none, Any if that is not known."""
        if self._parameter is None:
            return None
        return makeable(resolved(self._fn, self._parameter.annotation))

    def result_type(self) -> Any:
        """What the handler returns; None for nothing, Any if that is not known."""
        kind = resolved(self._fn, self._returns)
        return None if kind in (None, type(None)) else makeable(kind)


@final
class CallPlan:
    """How one handler is called.

    Args:
        fn: The handler.
        shape: What it takes.
        stack: The policy around each call, or None.
    """

    __slots__ = ("_call", "_kind", "_shape")

    def __init__(self, fn: Callable[..., Any], shape: Shape, stack: Policy | None) -> None:
        call: Callable[..., Awaitable[Any]] = fn if is_async(fn) else partial(call_in_thread, fn)
        self._call = call if stack is None else stack.wrap(call)
        self._shape = shape
        self._kind = shape.payload_type() if shape.takes_payload else Any

    def begin(self, ctx: Context, payload: object) -> Awaitable[Any]:
        """Return the call of the handler, to be awaited.

        Raises:
            RemoteError: The payload is not what the handler takes.
        """
        shape = self._shape
        if not shape.takes_payload:
            return self._call(ctx) if shape.takes_context else self._call()
        if self._kind is not Any and type(payload) is not self._kind:
            payload = self._converted(ctx, payload)
        return self._call(ctx, payload) if shape.takes_context else self._call(payload)

    def _converted(self, ctx: Context, payload: object) -> Any:
        try:
            return msgspec.convert(payload, self._kind, str_keys=True)
        except Exception as error:  # also what a type's own __post_init__ raises
            raise RemoteError(
                f"the payload is not what {ctx.handler!r} of service {ctx.service!r} takes: {error}",
                type="CodecError",
                code=BAD_PAYLOAD,
            ) from error


def _is_bare_context(parameters: Sequence[Parameter], *, payload: bool) -> bool:
    """Whether the first parameter, which has no annotation, can be for nothing but the context."""
    needed = [each for each in parameters if each.kind in POSITIONAL and _is_needed(each)]
    return parameters[0].annotation is Parameter.empty and len(needed) == 1 + payload


def _may_take(parameter: Parameter) -> bool:
    return parameter.kind in (*POSITIONAL, Parameter.VAR_POSITIONAL)


def _is_needed(parameter: Parameter) -> bool:
    starred = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return parameter.default is Parameter.empty and parameter.kind not in starred


def _name(fn: Callable[..., object]) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)
