"""Signatures: the context found, wrong calls refused, arguments made as the annotations say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest

import aiopatterns.jobs.context as context_module
from aiopatterns.core.context import Context as BaseContext
from aiopatterns.core.errors import CodecError
from aiopatterns.jobs.context import Context
from aiopatterns.jobs.signature import Signature

if TYPE_CHECKING:
    from decimal import Decimal as Unknown


class Own(Context):
    pass


class Colour(Enum):
    RED = "red"


@dataclass
class Order:
    id: int
    colour: Colour = Colour.RED


class Point(msgspec.Struct):
    x: int


def bare(ctx): ...
def ours(ctx: Context): ...
def base(ctx: BaseContext, x: int): ...
def own(ctx: Own): ...
def dotted(ctx: context_module.Context): ...
def quoted(ctx): ...


quoted.__annotations__["ctx"] = "Context"


def only_for_checkers(ctx): ...
def second(x: int, ctx: Context): ...
def by_keyword(*, ctx: Context): ...
def annotated(ctx: Annotated[int, "x"]): ...
def unknown(x: Unknown): ...
def none(): ...
def rest(*ctx: Context): ...


@pytest.mark.parametrize("fn", [ours, base, own, dotted, quoted])
def test_a_first_parameter_for_the_context(fn):
    signature = Signature(fn)
    assert signature.takes_context
    assert "ctx" not in signature.parameters.names


@pytest.mark.parametrize("fn", [bare, second, by_keyword, annotated, unknown, none, rest])
def test_anything_else_is_an_argument(fn):
    assert not Signature(fn).takes_context


def test_a_context_that_is_there_for_type_checkers_alone_is_told_by_its_name():
    only_for_checkers.__annotations__["ctx"] = "somewhere.Other"
    assert not Signature(only_for_checkers).takes_context
    only_for_checkers.__annotations__["ctx"] = "somewhere.Context"
    assert Signature(only_for_checkers).takes_context


def call(a, b=2, *more, c, d=4, **others): ...


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {"c": 3}), ((1, 2, 3, 4), {"c": 3, "e": 5}), ((), {"a": 1, "c": 3})],
)
def test_a_call_that_fits(args, kwargs):
    signature = Signature(call)
    for _ in range(2):
        signature.check(args, kwargs)


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {"c": 3}, "missing a required argument: 'a'"),
        ((1,), {}, "missing a required"),
        ((1,), {"a": 1, "c": 3}, "multiple values for argument 'a'"),
    ],
)
def test_a_call_that_does_not_fit(args, kwargs, message):
    signature = Signature(call)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"wrong arguments for call\(a, b=2, .*" + message):
            signature.check(args, kwargs)


def test_forms_of_calls_do_not_pile_up():
    signature = Signature(call)
    for n in range(1, 400):
        signature.check((0,) * n, {"c": 1})
        signature.convert([0] * n, {"c": 1})
    assert len(signature._forms) == len(signature._plans) == 256


def test_arguments_are_found():
    signature = Signature(call)
    assert signature.parameters.names == ("a", "b", "c", "d")
    a, b, c = (signature.parameters.finder(name) for name in "abc")
    assert a((7,), {}) == 7
    assert a((), {"a": 8}) == 8
    assert b((7,), {}) == 2
    assert b((7, 9), {}) == 9
    assert c((1, 2, 3), {"c": 5}) == 5


async def typed(
    order: Order,
    /,
    when: datetime,
    *points: Point,
    data: bytes = b"",
    colours: dict[int, Colour] | None = None,
    free: Any = None,
    **numbers: float,
) -> list[Order]:
    raise NotImplementedError


def test_arguments_are_made_as_the_annotations_say():
    args = [{"id": 1, "colour": "red"}, "2024-01-02T03:04:05Z", {"x": 1}, {"x": 2}]
    kwargs = {"data": "YWJj", "colours": {"1": "red"}, "free": {"as": "is"}, "n": 1}
    signature = Signature(typed)
    placed, named = signature.convert(args, kwargs)
    assert placed == [Order(1), datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), Point(1), Point(2)]
    assert named == {"data": b"abc", "colours": {1: Colour.RED}, "free": {"as": "is"}, "n": 1.0}
    assert signature.result_type == list[Order]


def test_a_bool_is_no_number_here_either():
    def fn(n: int, on: bool): ...

    fn.__annotations__.update(n=int, on=bool)
    assert Signature(fn).convert([1, True], {}) == ([1, True], {})
    for wrong in ([True, True], [1, 1]):
        with pytest.raises(CodecError):
            Signature(fn).convert(wrong, {})


def test_what_is_made_already_stays():
    order, when = Order(3), datetime(2024, 1, 1, tzinfo=UTC)
    assert Signature(typed).convert([order, when], {"data": b"x"}) == (
        [order, when],
        {"data": b"x"},
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ([{"id": "x"}, "2024-01-01T00:00:00Z"], {}, "argument 'order' of typed is not what it"),
        ([{"id": 1}, "soon"], {}, "argument 'when' of typed"),
        ([{"id": 1}, "2024-01-01T00:00:00Z", 5], {}, "argument 'points' of typed"),
        ([{"id": 1}, "2024-01-01T00:00:00Z"], {"n": "x"}, "argument 'n' of typed"),
        ([{"id": 1}], {}, "wrong arguments for typed.*missing a required argument: 'when'"),
    ],
)
def test_what_does_not_fit_is_a_codec_error(args, kwargs, message):
    with pytest.raises(CodecError, match=message):
        Signature(typed).convert(args, kwargs)


def test_what_nobody_can_resolve_or_make_stays_as_it_is():
    class Local: ...

    def fn(a: Unknown, b: Local, d: object, e: Connection): ...

    class Connection:
        def __init__(self, x): ...

    signature = Signature(fn)
    assert signature.convert([1, 2, 3, 4], {}) == ([1, 2, 3, 4], {})
    assert signature.result_type is Any


class Foreign:
    pass


@dataclass
class Holder:
    inner: list[Foreign]


@dataclass
class Tree:
    children: list[Tree]


async def foreign(a: Foreign, b: dict[str, Foreign], c: Holder, d: Order | Point) -> Foreign:
    return a


async def tree(a: Tree, b: object) -> Tree | None:
    return None


def test_classes_that_msgspec_does_not_know_are_left_to_the_codec():
    signature = Signature(foreign)
    args = [1, {"x": 2}, {"inner": [3]}, {"id": 1}]
    assert signature.convert(args, {}) == (args, {})
    assert signature.result_type is Any
    signature = Signature(tree)
    made = signature.convert([{"children": [{"children": []}]}, {"as": "is"}], {})
    assert made == ([Tree([Tree([])]), {"as": "is"}], {})
    assert signature.result_type == Tree | None


def test_annotations_may_name_what_comes_later():
    assert Signature(early).convert([{"y": 1}], {}) == ([Late(1)], {})


def early(late: Late): ...


@dataclass
class Late:
    y: int


def test_a_wrapped_function_keeps_its_own_types():
    @wraps(early)
    def wrapper(*args, **kwargs): ...

    assert Signature(wrapper).convert([{"y": 1}], {}) == ([Late(1)], {})


class Callable:
    async def __call__(self, order: Order) -> Order:
        return order


def test_an_object_that_can_be_called():
    signature = Signature(Callable())
    assert signature.parameters.names == ("order",)
    with pytest.raises(TypeError, match="wrong arguments for"):
        signature.check((), {})


def batch(ctx: Context, rows: list[Order]) -> list[Point]:
    return []


def batch_of_nothing(rows: list[Order]) -> None: ...
def untyped_batch(rows): ...
def batch_with_more(rows, more=1): ...


@pytest.mark.parametrize(
    ("fn", "takes_context", "result"),
    [(batch, True, Point), (batch_of_nothing, False, None), (untyped_batch, False, Any)],
)
def test_a_batch_is_called_with_one_item(fn, takes_context, result):
    signature = Signature(fn, batch=True)
    assert signature.takes_context is takes_context
    assert signature.parameters.names == ("rows",)
    signature.check((1,), {})
    for args, kwargs in [((), {}), ((1, 2), {}), ((), {"rows": [1]})]:
        with pytest.raises(TypeError, match="wrong arguments"):
            signature.check(args, kwargs)
    made = [Order(1)] if fn is not untyped_batch else [{"id": 1}]
    assert signature.convert([{"id": 1}], {}) == (made, {})
    assert signature.result_type is result
    assert signature.parameters.finder("rows")((5,), {}) == 5


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize("fn", [none, call, rest, by_keyword, batch_with_more])
def test_what_is_no_batch(fn):
    with pytest.raises(TypeError, match="a batch function takes one list"):
        Signature(fn, batch=True)


def test_what_has_no_signature():
    wrong: Any = 3
    with pytest.raises((TypeError, ValueError)):
        Signature(wrong)
