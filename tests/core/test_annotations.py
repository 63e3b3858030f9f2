"""Annotations: what they name, what msgspec can make, who wants the context."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns import core
from aiopatterns.core.annotations import makeable, resolved, wants_context
from aiopatterns.core.context import Context
from aiopatterns.jobs import Context as JobContext

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class Order:
    id: int
    parent: Order | None = None


class Foreign:
    pass


@dataclass
class Wrapper:
    inner: Foreign


async def typed(order: Order) -> int:
    return order.id


async def unknown(amount: Decimal) -> None: ...


@wraps(typed)
def wrapped(*args: Any) -> Any:
    return typed(*args)


@pytest.mark.parametrize("fn", [typed, wrapped], ids=["typed", "wrapped"])
def test_names_are_found_in_the_module_of_the_function(fn):
    assert resolved(fn, "Order | None") == Order | None


def test_a_name_that_is_not_there_stays_text():
    assert resolved(unknown, "Decimal") == "Decimal"
    assert resolved(partial(unknown), "Order") == "Order"


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (int, int),
        (Order, Order),
        (list[Order], list[Order]),
        (Foreign, Any),
        (Wrapper, Any),
        (dict[str, tuple[Foreign, int]], Any),
        ("Decimal", Any),
        (Parameter.empty, Any),
        (3, Any),
    ],
)
def test_what_msgspec_can_make(kind, made):
    assert makeable(kind) == made


def annotated(kind: object) -> Any:
    def fn(first: Any) -> None: ...

    fn.__annotations__["first"] = kind
    return fn


@pytest.mark.parametrize(
    ("kind", "wants"),
    [
        (Context, True),
        (JobContext, True),
        ("Context", True),
        ("jobs.Context", True),
        ("Contexts", False),
        (int, False),
        (Parameter.empty, False),
    ],
    ids=["base", "subclass", "text", "dotted", "other_text", "other", "none"],
)
def test_who_wants_the_context(kind, wants):
    fn = annotated(kind)
    (parameter,) = signature(fn).parameters.values()
    assert wants_context(fn, parameter.replace(annotation=kind)) is wants


def test_the_context_is_given_by_position():
    def fn(*, ctx: core.Context) -> None: ...

    (parameter,) = signature(fn).parameters.values()
    assert not wants_context(fn, parameter)
