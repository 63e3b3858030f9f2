"""Templates of keys: ``"user:{user_id}"`` over the arguments of a job.

A field is a parameter of the job's function, and may go on to attributes, as in
``"{order.customer_id}"``. It is checked when the job is defined, against the signature.

Two calls have one key only if all their fields are equal as text: characters of the template's own
text are escaped in the values, so ``"{a}:{b}"`` is not the same for ``"1:2", "3"`` and
``"1", "2:3"``. A long key is cut and ends in a digest of the whole.
"""

from __future__ import annotations

from hashlib import blake2b
from operator import attrgetter
from string import Formatter
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiopatterns.jobs.signature import Find, Signature

__all__ = ["Template"]

_LONGEST: Final = 200
_DIGEST: Final = 16


@final
class Template:
    """A key over the arguments of a call.

    Args:
        parameter: What it is given as, for errors, such as ``"unique.key"``.
        template: The template.
        signature: The parameters that it may name.

    Raises:
        ValueError: It is malformed, names what is no parameter, has a format or a conversion, or
            two fields with no text between them.

    Complexity: O(length) for each call, about 1 us.
    """

    __slots__ = ("_escapes", "_fields", "_text", "template")

    def __init__(self, parameter: str, template: str, signature: Signature) -> None:
        self.template = text(parameter, template)
        fields, self._text = _parsed(parameter, template)
        self._fields = tuple(
            (before, *_field(parameter, field, signature)) for before, field in fields
        )
        texts = (self._text, *(before for before, _ in fields))
        self._escapes = {ord(each): f"%{ord(each):02x}" for each in {"%", *"".join(texts)}}

    def render(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the key of a call.

        Raises:
            AttributeError: An argument has no attribute that the template names.
        """
        parts: list[str] = []
        for literal, find, attribute in self._fields:
            value = find(args, kwargs)
            if attribute is not None:
                value = attribute(value)
            parts += (literal, str(value).translate(self._escapes))
        key = "".join((*parts, self._text))
        if len(key) <= _LONGEST:
            return key
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).hexdigest()
        return f"{key[: _LONGEST - 2 * _DIGEST]}{digest}"


def _field(
    parameter: str, field: str, signature: Signature
) -> tuple[Find, Callable[[Any], Any] | None]:
    """Return what finds the argument that a field names, and what finds the attribute of that."""
    name, dot, attributes = field.partition(".")
    if name not in signature.names:
        known = ", ".join(signature.names) or "none"
        msg = f"{parameter} names {name!r}, which is no parameter of the job (it has: {known})"
        raise ValueError(msg)
    if not dot:
        return signature.finder(name), None
    if not all(each.isidentifier() and each[0] != "_" for each in attributes.split(".")):
        msg = f"{parameter} may name public attributes, not {field!r}"
        raise ValueError(msg)
    return signature.finder(name), attrgetter(attributes)


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
