"""Every function takes what it should, and refuses the rest by name, value and choices."""

from __future__ import annotations

import math
from functools import partial, wraps
from types import coroutine

import pytest

from aiopatterns.core import validate

HUGE = 10**400


async def coro() -> None: ...


def plain() -> None: ...


@coroutine
def stepped():
    yield


@wraps(coro)
def wrapping():
    return coro()


async def stream():
    yield 1


class Client:
    def get(self) -> object: ...


ACCEPTED = [
    ("async_function", (coro,), {}),
    ("async_function", (stepped,), {}),
    ("async_function", (wrapping,), {}),
    ("async_function", (stream,), {}),
    ("async_function", (lambda n: coro(),), {}),
    ("async_function", (Client().get,), {}),
    ("async_function", (partial(plain),), {}),
    ("async_function", (len,), {}),
    ("number", (1.5,), {}),
    ("number", (-3,), {}),
    ("number", (math.inf,), {}),
    ("number", (HUGE,), {}),
    ("positive", (0.1,), {}),
    ("positive", (math.inf,), {"finite": False}),
    ("non_negative", (0,), {}),
    ("non_negative", (math.inf,), {"finite": False}),
    ("in_range", (0, 0, 1), {}),
    ("in_range", (1, 0, 1), {}),
    ("at_least", (2, 2), {}),
    ("count", (1,), {}),
    ("count", (0,), {"minimum": 0}),
    ("optional_positive", (None,), {}),
    ("optional_positive", (2,), {}),
    ("optional_count", (None,), {}),
    ("optional_count", (0,), {"minimum": 0}),
    ("choice", ("a", ("a", "b")), {}),
    ("error_type", (OSError,), {}),
    ("function", (len,), {}),
    ("plain_function", (len,), {}),
    ("optional_function", (None,), {}),
    ("optional_function", (len,), {}),
    ("instance", ("a", str, "a string"), {}),
    ("text", ("a",), {}),
]

REFUSED = [
    ("async_function", (5,), {}, TypeError, "x must be a function, not 5"),
    (
        "async_function",
        (plain,),
        {},
        TypeError,
        (
            "x must be an async function, not the plain function plain; write 'async def', or run"
            " it in a thread with anyio.to_thread.run_sync"
        ),
    ),
    ("number", (True,), {}, TypeError, "x must be a number, not True"),
    ("number", ("1",), {}, TypeError, "x must be a number, not '1'"),
    ("number", (None,), {}, TypeError, "x must be a number, not None"),
    ("number", (math.nan,), {}, ValueError, "x must be a number, not nan"),
    ("positive", (0,), {}, ValueError, "x must be a finite number > 0, not 0"),
    ("positive", (-1,), {}, ValueError, "x must be a finite number > 0, not -1"),
    ("positive", (math.inf,), {}, ValueError, "x must be a finite number > 0, not inf"),
    ("positive", (HUGE,), {}, ValueError, f"x must be a finite number > 0, not {HUGE}"),
    ("positive", (0,), {"finite": False}, ValueError, "x must be a number > 0, not 0"),
    ("positive", (math.nan,), {}, ValueError, "x must be a finite number > 0, not nan"),
    ("non_negative", (-0.1,), {}, ValueError, "x must be a finite number >= 0, not -0.1"),
    ("non_negative", (math.inf,), {}, ValueError, "x must be a finite number >= 0, not inf"),
    ("non_negative", (-1,), {"finite": False}, ValueError, "x must be a number >= 0, not -1"),
    ("non_negative", ("0",), {}, TypeError, "x must be a finite number >= 0, not '0'"),
    ("in_range", (1.1, 0, 1), {}, ValueError, "x must be between 0 and 1, not 1.1"),
    ("in_range", (math.nan, 0, 1), {}, ValueError, "x must be between 0 and 1, not nan"),
    ("in_range", (None, 0, 1), {}, TypeError, "x must be between 0 and 1, not None"),
    ("at_least", (1, 2), {}, ValueError, "x must be at least 2, not 1"),
    ("at_least", (math.nan, 2), {}, ValueError, "x must be at least 2, not nan"),
    ("count", (0,), {}, ValueError, "x must be a whole number >= 1, not 0"),
    ("count", (-1,), {"minimum": 0}, ValueError, "x must be a whole number >= 0, not -1"),
    ("count", (True,), {}, TypeError, "x must be a whole number >= 1, not True"),
    ("count", (1.0,), {}, TypeError, "x must be a whole number >= 1, not 1.0"),
    ("optional_positive", (0,), {}, ValueError, "x must be a finite number > 0, not 0"),
    ("optional_count", (0,), {}, ValueError, "x must be a whole number >= 1, not 0"),
    ("choice", ("c", ("a", "b")), {}, ValueError, "x must be one of 'a', 'b', not 'c'"),
    ("choice", ([], ("a", "b")), {}, ValueError, "x must be one of 'a', 'b', not []"),
    ("error_type", (int,), {}, TypeError, "x must be a type of Exception, not <class 'int'>"),
    ("error_type", (OSError(),), {}, TypeError, "x must be a type of Exception, not OSError()"),
    (
        "error_type",
        (UnicodeDecodeError,),
        {},
        TypeError,
        (
            "x must be a type that needs no arguments, not <class 'UnicodeDecodeError'>: "
            "function takes exactly 5 arguments (0 given)"
        ),
    ),
    ("function", (5,), {}, TypeError, "x must be a function, not 5"),
    ("plain_function", (5,), {}, TypeError, "x must be a function, not 5"),
    ("optional_function", (5,), {}, TypeError, "x must be a function, not 5"),
    ("instance", (5, str, "a string"), {}, TypeError, "x must be a string, not 5"),
    ("text", ("",), {}, ValueError, "x must be a non-empty string, not ''"),
    ("text", (b"a",), {}, TypeError, "x must be a non-empty string, not b'a'"),
]


class CalledAsync:
    async def __call__(self):
        """Do nothing."""


async def some_async():
    """Do nothing."""


@pytest.mark.parametrize("fn", [some_async, partial(some_async), CalledAsync()])
def test_async_functions_and_what_is_called_like_one(fn):
    assert validate.is_async(fn)
    assert not validate.is_async(CalledAsync)
    with pytest.raises(TypeError, match="x must be a plain function, not the async function"):
        validate.plain_function("x", fn)


def test_every_function_is_tried_both_ways():
    names = set(validate.__all__) - {"is_async"}
    assert {case[0] for case in ACCEPTED} == names
    assert {case[0] for case in REFUSED} == names


@pytest.mark.parametrize("case", ACCEPTED, ids=range(len(ACCEPTED)))
def test_what_is_right_comes_back_as_it_is(case):
    name, given, options = case
    assert getattr(validate, name)("x", *given, **options) is given[0]


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize("case", REFUSED, ids=range(len(REFUSED)))
def test_what_is_wrong_is_refused_in_one_line(case):
    name, given, options, error, message = case
    with pytest.raises(error) as caught:
        getattr(validate, name)("x", *given, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("check", [validate.positive, validate.non_negative])
def test_an_int_beyond_all_floats_is_infinity(check):
    assert check("x", 10**400, finite=False) == math.inf
    with pytest.raises(ValueError, match=r"^x must be a finite number"):
        check("x", 10**400)
