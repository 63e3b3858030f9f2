"""What a job's function takes and gives, read from its signature once.

Three things follow from it: a wrong call is refused when it is enqueued and not when it is run;
arguments arrive in the function as its annotations say, dataclasses and msgspec structs included;
and the templates of keys find their values.

Annotations are resolved when they are needed first, so they may name what is defined below the
function. One that cannot be resolved (it names what is imported for type checkers alone, or is
local to another function), or that msgspec knows no way to make, leaves the value as the codec
gives it.
"""

from __future__ import annotations

from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final, get_args

import msgspec

from aiopatterns.core.annotations import POSITIONAL, makeable, resolved, wants_context
from aiopatterns.core.errors import CodecError
from aiopatterns.core.template import Parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Signature"]

_Plan: TypeAlias = "tuple[tuple[str, Any], ...]"

# Forms of calls that are remembered as good; a program has as many as it has calls.
_KEPT_FORMS: Final = 256


@final
class Signature:
    """The parameters of a job's function, without its context.

    Args:
        fn: The function.
        batch: Whether it takes a list, of which a job is one item.

    Raises:
        TypeError: It has no signature, or is a batch function that takes anything but one list.
    """

    __slots__ = (
        "_batch",
        "_fn",
        "_forms",
        "_kinds",
        "_name",
        "_plans",
        "_result",
        "_whole",
        "parameters",
        "takes_context",
    )

    def __init__(self, fn: Callable[..., object], *, batch: bool = False) -> None:
        self._fn = fn
        self._name: str = getattr(fn, "__qualname__", repr(fn))
        self._batch = batch
        whole = signature(fn)
        parameters = list(whole.parameters.values())
        self.takes_context: bool = bool(parameters) and wants_context(fn, parameters[0])
        if self.takes_context:
            del parameters[0]
        if batch:
            parameters = self._one_list(parameters)
        self._whole = whole.replace(parameters=parameters)
        self.parameters: Parameters = Parameters(self._whole)  # what templates may name
        self._forms: set[tuple[object, ...]] = set()
        self._plans: dict[tuple[object, ...], tuple[_Plan, _Plan]] = {}
        self._kinds: dict[str, Any] | None = None
        self._result: Any = Any

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse a call that the function would refuse.

        Raises:
            TypeError: An argument is missing, or there is one too many.

        Complexity: O(arguments), about 0.2 us for a form of call that was seen before.
        """
        form = (len(args), *kwargs)
        if form in self._forms:
            return
        try:
            self._whole.bind(*args, **kwargs)
        except TypeError as error:
            msg = f"wrong arguments for {self._name}{self._whole}: {error}"
            raise TypeError(msg) from None
        if len(self._forms) < _KEPT_FORMS:
            self._forms.add(form)

    def convert(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call as the annotations say.

        Args:
            args: Positional arguments, as a codec gave them; for a batch one item.
            kwargs: Keyword arguments, likewise.

        Raises:
            CodecError: The call does not fit the function, or an argument its annotation.

        Complexity: O(size); what is of its type already costs next to nothing.
        """
        form = (len(args), *kwargs)
        placed, named = self._plans.get(form) or self._plan(form, args, kwargs)
        made = [
            value if kind is Any or type(value) is kind else self._make(name, kind, value)
            for (name, kind), value in zip(placed, args, strict=True)
        ]
        if not kwargs:
            return made, {}
        values = kwargs.values()
        return made, {
            name: value if kind is Any or type(value) is kind else self._make(name, kind, value)
            for (name, kind), value in zip(named, values, strict=True)
        }

    @property
    def result_type(self) -> Any:
        """What the function gives, for a batch for one item; Any if that is not known."""
        self._resolved()
        return self._result

    def _one_list(self, parameters: list[Parameter]) -> list[Parameter]:
        """Return the parameters of a batch function, which is called with one item by position."""
        if not (len(parameters) == 1 and parameters[0].kind in POSITIONAL):
            msg = f"a batch function takes one list (after ctx, if it wants that), not {self._name}"
            raise TypeError(msg)
        return [parameters[0].replace(kind=Parameter.POSITIONAL_ONLY)]

    def _places(self, count: int) -> list[str]:
        """Return the parameter of each positional argument; what is over goes to ``*args``."""
        found: list[str] = []
        for name, parameter in self._whole.parameters.items():
            if parameter.kind is Parameter.VAR_POSITIONAL:
                found += [name] * (count - len(found))
            elif parameter.kind in POSITIONAL:
                found.append(name)
        return found[:count]

    def _plan(
        self, form: tuple[object, ...], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[_Plan, _Plan]:
        """Return the parameter and the type of each argument of calls of one form."""
        try:
            self.check(args, kwargs)
        except TypeError as error:
            raise CodecError(str(error)) from None
        kinds = self._resolved()
        rest = kinds.get("**", Any)
        placed = tuple((name, kinds.get(name, Any)) for name in self._places(len(args)))
        plan = placed, tuple((name, kinds.get(name, rest)) for name in kwargs)
        if form in self._forms:  # which are bounded
            self._plans[form] = plan
        return plan

    def _make(self, name: str, kind: Any, value: Any) -> Any:
        try:
            return msgspec.convert(value, kind, str_keys=True)  # JSON makes text of all keys
        except Exception as error:
            msg = f"argument {name!r} of {self._name} is not what it should be: {error}"
            raise CodecError(msg) from error

    def _resolved(self) -> dict[str, Any]:
        """Return the types by parameter, ``**`` for what is over; made at the first use."""
        if self._kinds is None:
            kinds: dict[str, Any] = {}
            for name, parameter in self._whole.parameters.items():
                key = "**" if parameter.kind is Parameter.VAR_KEYWORD else name
                kind = resolved(self._fn, parameter.annotation)
                kinds[key] = makeable(_item_of(kind) if self._batch else kind)
            result = resolved(self._fn, self._whole.return_annotation)
            self._result = makeable(_item_of(result) if self._batch else result)
            self._kinds = kinds
        return self._kinds


def _item_of(kind: Any) -> Any:
    """Return the type of the items of a list type; None for None, and Any for what else."""
    if kind is None or kind is type(None):
        return None
    items = get_args(kind)
    return items[0] if len(items) == 1 else Any
