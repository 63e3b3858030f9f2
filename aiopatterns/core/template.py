"""Templates of keys: ``"user:{user_id}"`` over the arguments of a call.

A field is a parameter of the function, and may go on to attributes, as in
``"{order.customer_id}"``. It is checked when the template is made, against the signature.

Two calls have one key only if all their fields are equal as text: the text that stands *between*
two fields is escaped in the values, so ``"{a}:{b}"`` is not the same for ``"1:2", "3"`` and
``"1", "2:3"``. What stands before the first field and after the last cannot be mistaken, so a
template of one field takes its value as it is: ``"user:ann"`` may be written by hand. A long key is
cut and ends in a digest of the whole.
"""

from __future__ import annotations

from hashlib import blake2b
from inspect import Parameter
from operator import attrgetter
from string import Formatter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from inspect import Signature

__all__ = ["Find", "Parameters", "Template"]

Find: TypeAlias = "Callable[[Sequence[Any], Mapping[str, Any]], Any]"
"""Finds one argument of a call, given its positional and its keyword arguments."""

_LONGEST: Final = 200
_DIGEST: Final = 16
_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@final
class Parameters:
    """The parameters of a function that a template may name.

    Args:
        signature: Its signature, as :func:`inspect.signature` gives it.
    """

    __slots__ = ("_places",)

    def __init__(self, signature: Signature) -> None:
        found = enumerate(signature.parameters.items())
        self._places = {
            name: (at if each.kind in _POSITIONAL else None, each.default)
            for at, (name, each) in found
            if each.kind not in _VARIADIC
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that a template may name, in order."""
        return tuple(self._places)

    def finder(self, name: str) -> Find:
        """Return the function that finds the argument for the parameter ``name`` in a call."""
        at, default = self._places[name]
        if at is None:
            return lambda _, kwargs: kwargs.get(name, default)

        def find(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            return args[at] if at < len(args) else kwargs.get(name, default)

        return find


@final
class Template:
    """A key over the arguments of a call.

    Args:
        parameter: What it is given as, for errors, such as ``"unique.key"``.
        template: The template.
        parameters: What it may name.

    Raises:
        ValueError: It is malformed, names what is no parameter, has a format or a conversion, or
            two fields with no text between them.

    Complexity: O(length) for each call: 0.2 us for one field, about 1 us for several.
    """

    __slots__ = ("_escapes", "_fields", "_text", "render", "template")

    def __init__(self, parameter: str, template: str, parameters: Parameters) -> None:
        self.template: str = text(parameter, template)
        fields, self._text = _parsed(parameter, template)
        self._fields = tuple(
            (before, *_field(parameter, template, field, parameters)) for before, field in fields
        )
        between = "".join(before for before, _ in fields[1:])
        self._escapes = {ord(each): f"%{ord(each):02x}" for each in {"%", *between}}
        #: Returns the key of a call, given its positional and its keyword arguments. Raises a
        #: ValueError if an argument has no attribute that the template names.
        self.render: Callable[[Sequence[Any], Mapping[str, Any]], str] = self._render
        if len(fields) == 1:
            self.render = _of_one(*self._fields[0], self._text)

    def _render(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        parts: list[str] = []
        for literal, find, attribute in self._fields:
            value = find(args, kwargs)
            if attribute is not None:
                value = attribute(value)
            parts += (literal, str(value).translate(self._escapes))
        key = "".join((*parts, self._text))
        return key if len(key) <= _LONGEST else _cut(key)


def _of_one(
    before: str, find: Find, attribute: Callable[[Any], Any] | None, after: str
) -> Callable[[Sequence[Any], Mapping[str, Any]], str]:
    """Return what renders a template of one field, whose value needs no escapes."""

    def render(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        value = find(args, kwargs)
        if attribute is not None:
            value = attribute(value)
        key = f"{before}{value!s}{after}"
        return key if len(key) <= _LONGEST else _cut(key)

    return render


def _cut(key: str) -> str:
    """Return the beginning of a key that is too long, with a digest of the whole."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).hexdigest()
    return f"{key[: _LONGEST - 2 * _DIGEST]}{digest}"


def _field(
    parameter: str, template: str, field: str, parameters: Parameters
) -> tuple[Find, Callable[[Any], Any] | None]:
    """Return what finds the argument that a field names, and what finds the attribute of that."""
    name, dot, attributes = field.partition(".")
    if name not in parameters.names:
        known = ", ".join(parameters.names) or "none"
        msg = f"{parameter} names {name!r}, which is no parameter of the function (it has: {known})"
        raise ValueError(msg)
    if not dot:
        return parameters.finder(name), None
    if not all(each.isidentifier() and each[0] != "_" for each in attributes.split(".")):
        msg = f"{parameter} may name public attributes, not {field!r}"
        raise ValueError(msg)
    return parameters.finder(name), _reader(attributes, f"{parameter} {template!r}")


def _reader(attributes: str, template: str) -> Callable[[Any], Any]:
    """Return what reads attributes of an argument, whose error names the template."""
    read = attrgetter(attributes)

    def reader(value: Any) -> Any:
        try:
            return read(value)
        except AttributeError as error:
            msg = f"{template} does not fit the arguments of this call: {error}"
            raise ValueError(msg) from error

    return reader


def _parsed(parameter: str, template: str) -> tuple[list[tuple[str, str]], str]:
    """Return the fields, each with the text before it, and the text after the last."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        msg = (
            f"{parameter} must be a template such as 'user:{{user_id}}', not {template!r}: {error}"
        )
        raise ValueError(msg) from None
    fields: list[tuple[str, str]] = []
    before = ""
    for literal, field, spec, conversion in parts:
        before += literal
        if field is None:
            continue  # an escaped brace; its text goes on
        if spec or conversion:
            msg = f"{parameter} may have plain fields only, no format: {template!r}"
            raise ValueError(msg)
        if fields and not before:
            msg = f"{parameter} needs text between two fields, not {template!r}"
            raise ValueError(msg)
        fields.append((before, field))
        before = ""
    return fields, before
