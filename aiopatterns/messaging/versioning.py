"""Upcasters: old messages seen as if they were written today.

Messages outlive the program that wrote them: they lie in streams, wait in dead letters, and come
from the half of a fleet that is not deployed yet. Handlers should know one form of each, the
newest. Steps lead there, each from one version to the next::

    ("order", 1) --add_currency--> ("order", 2) --split_name--> ("order", 3)   newest
                                                                    |
    a message of version 1 takes both steps, one of version 2 the last, one of version 3 none

    ("order", 3) --rename--> ("purchase", 1)      a type may change its name, once

All that can be wrong with the steps themselves is refused when they are registered. What they do
to real payloads shows :meth:`Upcasters.check`, with a sample of each old version.

Guarantees:

* Every version that a step begins with leads to the newest one, in one go that was put together at
  registration. There are no gaps, no cycles, no two ways.
* Any payload upcasts or raises :class:`~aiopatterns.core.errors.CodecError`, whatever a step makes
  of it; a version that is newer than all known ones raises ``UnknownVersionError``.

Not guaranteed: anything about a type without steps, which upcasts to itself in every version.

Source: event upcasting, as in Greg Young, "Versioning in an Event Sourced System" (2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

import msgspec

from aiopatterns.core.errors import CodecError, UnknownVersionError
from aiopatterns.core.notes import in_words
from aiopatterns.core.validate import count, instance, plain_function, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from aiopatterns.messaging.message import Message

__all__ = ["Form", "Upcast", "Upcasters", "optional_upcasters"]

Step: TypeAlias = "Callable[[Any], Any]"

# Characters that are shown of what a step raised.
_SHOWN: Final = 200


class Form(NamedTuple):
    """What a payload is: a type of message in one of its versions.

    Attributes:
        type: The type of the message.
        version: Its version, from 1.
    """

    type: str
    version: int

    def __str__(self) -> str:
        return f"{self.type} v{self.version}"


class Upcast(NamedTuple):
    """A payload in one form.

    Attributes:
        type: The type of the message.
        version: Its version.
        payload: The payload in that form.
    """

    type: str
    version: int
    payload: Any


@final
class _Step(NamedTuple):
    """From one form to the next."""

    start: Form
    to: Form
    fn: Step


@final
class Upcasters:
    """Steps from old versions of messages to the newest ones.

    Example::

        upcasters = Upcasters()
        upcasters.step("order", 1, lambda order: order | {"currency": "EUR"})
        upcasters.step("order", 2, lambda order: order, to=("purchase", 1))
        upcasters.upcast("order", 1, {"id": 17})
        # ("purchase", 1, {"id": 17, "currency": "EUR"})
    """

    __slots__ = ("_last", "_routes", "_steps")

    def __init__(self) -> None:
        self._steps: dict[Form, _Step] = {}
        self._last: dict[str, int] = {}  # the newest known version of each type
        self._routes: dict[tuple[str, int], tuple[_Step, ...]] = {}  # all steps from a form on

    def step(self, type: str, version: int, fn: Step, *, to: tuple[str, int] | None = None) -> Self:
        """Register the step from one version to the next; those of a type in ascending order.

        Args:
            type: Type of the message before the step.
            version: Its version, from 1: for the first step of a type any, then always the newest.
            fn: A plain function of a payload that returns the payload in its next form. It leaves
                what it is given as it is.
            to: What it becomes; by default the same type in the next version. Another type that
                has steps already has to have this version.

        Returns:
            These upcasters, so that steps can be written in a row.

        Raises:
            ValueError: There is such a step already, or there would be a gap or a cycle.
            TypeError: A value is of another type.

        Complexity: O(steps).
        """
        plain_function("fn", fn)
        start = _form("type", type, "version", version)
        target = Form(type, version + 1) if to is None else _target(to)
        self._check_start(start)
        self._check_target(start, target)
        self._last.setdefault(type, version)
        self._last[target.type] = max(target.version, self._last.get(target.type, 0))
        step = self._steps[start] = _Step(start, target, fn)
        onward = (step, *self._routes.get(target, ()))
        for form, route in self._routes.items():
            if route[-1].to == start:
                self._routes[form] = (*route, *onward)
        self._routes[start] = onward
        return self

    def upcast(self, type: str, version: int, payload: Any) -> Upcast:
        """Return ``payload`` in its newest form, with the type and version that it has there.

        Args:
            type: Type of the message.
            version: Version of the payload.
            payload: Plain data.

        Returns:
            A tuple of type, version and payload; the same ones if there is nothing to do.

        Raises:
            UnknownVersionError: The version is newer than those that are known here, or older
                than the first of them.
            CodecError: A step raised, or returned nothing.

        Complexity: O(steps of this type).
        """
        route = self._route(type, version)
        for step in route:
            payload = _taken(step, payload)
        form = route[-1].to if route else Form(type, version)
        return Upcast(*form, payload)

    def upcast_message(self, message: Message) -> Message:
        """Return ``message`` with its payload in the newest form; itself if it is that already.

        Raises:
            UnknownVersionError: As :meth:`upcast`.
            CodecError: As :meth:`upcast`.
        """
        if not self._route(message.type, message.version):
            return message
        newest = self.upcast(message.type, message.version, message.payload)
        return msgspec.structs.replace(message, **newest._asdict())

    def trail(self, type: str, version: int, payload: Any) -> tuple[Upcast, ...]:
        """Return ``payload`` in each of its forms, from this one to the newest.

        For tests and for finding out which step spoils something.

        Raises:
            UnknownVersionError: As :meth:`upcast`.
            CodecError: As :meth:`upcast`.
        """
        forms = [Upcast(type, version, payload)]
        for step in self._route(type, version):
            forms.append(Upcast(*step.to, _taken(step, forms[-1].payload)))
        return tuple(forms)

    def forms(self) -> tuple[Form, ...]:
        """Return the old forms, those that a step begins with, in the order of registration."""
        return tuple(self._steps)

    def check(self, samples: Mapping[tuple[str, int], Any]) -> dict[tuple[str, int], Upcast]:
        """Upcast samples of old versions and see that every step bears them.

        Args:
            samples: A payload of each type and version.

        Returns:
            What became of each, to compare.

        Raises:
            CodecError: One or more samples do not upcast, or a step changed the payload that it
                was given; the text names all of them.
            ValueError: A key is no type and version.
            TypeError: The same.

        Example::

            upcasters.check({("order", 1): {"id": 17}, ("order", 2): {"id": 17, "currency": "EUR"}})
        """
        instance("samples", samples, Mapping, "a mapping of (type, version) to a payload")
        found: dict[tuple[str, int], Upcast] = {}
        wrong: list[str] = []
        for key, sample in samples.items():
            form = _target(key, "samples' keys")
            try:
                found[form] = self._tried(form, sample)
            except CodecError as error:
                wrong.append(str(error))
        if wrong:
            raise CodecError(f"{len(wrong)} of {len(samples)} samples: " + "; ".join(wrong))
        return found

    def __repr__(self) -> str:
        return f"Upcasters({len(self._steps)} steps)"

    def _tried(self, form: Form, sample: Any) -> Upcast:
        """Upcast one sample; a step that writes to what it is given is found out."""
        for step in self._route(*form):
            before = deepcopy(sample)
            after = _taken(step, sample)
            if sample != before:
                raise CodecError(f"{step.start} to {step.to}: the step changes what it is given")
            sample, form = after, step.to
        return Upcast(*form, sample)

    def _route(self, type: str, version: int) -> tuple[_Step, ...]:
        """Return the steps from a form to the newest one."""
        route = self._routes.get((type, version))
        if route is not None:
            return route
        last = self._last.get(type)
        form = _form("type", type, "version", version)
        if last is None or version == last:
            return ()
        what = "newer than" if version > last else "older than the first version known here, up to"
        raise UnknownVersionError(f"{form} is {what} {Form(type, last)}", version=version)

    def _check_start(self, start: Form) -> None:
        if start in self._steps:
            msg = f"version must be one without a step, but {start} becomes {self._steps[start].to}"
            raise ValueError(msg)
        last = self._last.get(start.type, start.version)
        if start.version != last:
            msg = (
                f"version must be {last}, the newest of {start.type!r} so far, not {start.version}:"
                f" steps are registered in ascending order, without gaps"
            )
            raise ValueError(msg)

    def _check_target(self, start: Form, target: Form) -> None:
        if target.type == start.type:
            if target.version != start.version + 1:
                msg = f"to must be the version after {start}, not {target}: no gaps, no cycles"
                raise ValueError(msg)
            return
        last = self._last.get(target.type)
        if last is not None and target.version != last and target not in self._steps:
            msg = (
                f"to must be a known version of {target.type!r}, up to {last}, not {target}: a gap"
            )
            raise ValueError(msg)
        if any(step.to == start for step in self._routes.get(target, ())):
            msg = f"to must not lead back, but {target} becomes {start} again: a cycle"
            raise ValueError(msg)


def optional_upcasters(value: Upcasters | None) -> Upcasters | None:
    """Return ``value`` if it is None or upcasters.

    Raises:
        TypeError: It is something else.
    """
    if value is not None:
        instance("upcasters", value, Upcasters, "Upcasters or None")
    return value


def _form(type_name: str, type: str, version_name: str, version: int) -> Form:
    return Form(text(type_name, type), count(version_name, version))


def _target(to: tuple[str, int], name: str = "to") -> Form:
    if not isinstance(to, tuple) or len(to) != len(Form._fields):
        msg = f"{name} must be a tuple of a type and a version, not {to!r}"
        raise TypeError(msg)
    return _form(f"{name}[0]", to[0], f"{name}[1]", to[1])


def _taken(step: _Step, payload: Any) -> Any:
    """Take one step; whatever a step does with a payload, one kind of error comes of it."""
    try:
        taken = step.fn(payload)
    except Exception as error:
        what = in_words(error)[:_SHOWN]
        raise CodecError(f"{step.start} to {step.to}: the step raised {what}") from error
    if taken is None and payload is not None:
        raise CodecError(f"{step.start} to {step.to}: the step returned nothing")
    return taken
