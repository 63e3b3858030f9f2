"""Which errors are meant: types, tuples, predicates, groups, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.errors import BulkheadFullError, CircuitOpenError, RejectedError
from aiopatterns.resilience.matching import Matcher


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


async def async_predicate(error):
    return True


def group(*errors):
    return ExceptionGroup("several", errors)


@pytest.mark.parametrize(
    ("on", "error", "named", "included"),
    [
        (OSError, ConnectionError(), True, True),
        (OSError, ValueError(), False, False),
        ((KeyError, OSError), OSError(), True, True),
        (Exception, CircuitOpenError(), False, True),
        ((OSError, Exception), BulkheadFullError(), False, True),
        (RejectedError, CircuitOpenError(), True, True),
        ((Exception, CircuitOpenError), CircuitOpenError(), True, True),
        ((OSError, CircuitOpenError), BulkheadFullError(), False, False),
        (lambda e: "x" in e.args, RejectedError("x"), True, True),
        (lambda e: e.args, ValueError(), False, False),
        (OSError, group(OSError(), group(OSError())), True, True),
        (OSError, group(OSError(), group(ValueError())), False, False),
        (Exception, group(OSError(), CircuitOpenError()), False, True),
        (ExceptionGroup, group(OSError(), CircuitOpenError()), True, True),
    ],
    ids=range(14),
)
def test_what_is_meant(on, error, named, included):
    assert Matcher(on, refusals=False).matches(error) is named
    assert Matcher(on, refusals=True).matches(error) is included


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    "on", [(), 3, "OSError", None, BaseException, KeyboardInterrupt, (OSError, "x"), [OSError]]
)
def test_bad_input_is_one_clear_error(on):
    with pytest.raises(TypeError, match=r"^on must be an Exception type, a tuple of them, or a"):
        Matcher(wrong(on), refusals=True)


@pytest.mark.promise("resilience-bad-input")
def test_a_predicate_is_a_plain_function():
    with pytest.raises(TypeError, match=r"^on must be a plain function, not the async function"):
        Matcher(wrong(async_predicate), refusals=True)

    class Asks:
        async def __call__(self, error):
            return True

    with pytest.raises(TypeError, match=r"^on must be a plain function, not the async function"):
        Matcher(wrong(Asks()), refusals=True)
