"""Annotations: what a function's parameters want, read without insisting on an answer.

Handlers of jobs and of messages say by annotations what they take. An annotation may name what is
defined further down, or imported for type checkers alone, or a class that msgspec knows no way to
make; none of that is an error here. It is read when it is needed, and what cannot be read leaves
the value as it came.
"""

from __future__ import annotations

from inspect import Parameter, isclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast, get_type_hints

import msgspec
import msgspec.inspect

from aiopatterns.core.context import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["POSITIONAL", "makeable", "resolved", "wants_context"]

#: Kinds of parameters that may be given by position.
POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def wants_context(fn: Callable[..., object], parameter: Parameter) -> bool:
    """Whether a first parameter is for the context; a name that is not there at run time counts."""
    if parameter.kind not in POSITIONAL:
        return False
    kind = resolved(fn, parameter.annotation)
    if isinstance(kind, str):
        return kind.rpartition(".")[2] == "Context"
    return isclass(kind) and issubclass(kind, Context)


def resolved(fn: Callable[..., object], annotation: Any) -> Any:
    """Return what an annotation names; itself if that is not there (yet)."""
    holder = SimpleNamespace(__annotations__={"it": annotation})
    names = getattr(fn, "__globals__", None) or getattr(
        getattr(fn, "__wrapped__", None), "__globals__", {}
    )
    try:
        return get_type_hints(holder, names, include_extras=True)["it"]
    except Exception:
        return annotation


def makeable(kind: Any) -> Any:
    """Return ``kind`` if msgspec can make it of plain data, else Any."""
    if isinstance(kind, str) or kind is Parameter.empty:
        return Any
    try:
        found = msgspec.inspect.type_info(kind)
    except Exception:
        return Any
    return Any if _is_foreign(found, set()) else kind


def _is_foreign(found: Any, seen: set[int]) -> bool:
    """Whether there is a class in a type, however deep, that msgspec does not know."""
    if isinstance(found, msgspec.inspect.CustomType):
        return True
    if isinstance(found, tuple):
        parts: Iterable[Any] = cast("Iterable[Any]", found)
    elif isinstance(found, (msgspec.inspect.Type, msgspec.inspect.Field)) and id(found) not in seen:
        seen.add(id(found))  # a type may contain itself
        parts = tuple(getattr(found, name) for name in found.__struct_fields__)
    else:
        return False
    return any(_is_foreign(each, seen) for each in parts)
