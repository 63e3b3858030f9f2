from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.gateway.policy import HttpCache, Timeouts
from aiopatterns.gateway.routing import Route
from aiopatterns.gateway.tables import Table


@pytest.fixture
def problems():
    return []


@pytest.fixture
def table(problems):
    def made(values: Any, path: str = "top") -> Table:
        return Table(values, path, lambda where, what: problems.append(f"{where}: {what}"))

    return made


def test_what_is_taken_is_known_and_the_rest_is_not(table, problems):
    given = table({"connect": 1, "totl": 2, "idle": 3, "xyz": 4})
    assert given.take("connect", "first_byte", "total") == {"connect": 1}
    assert given.take("idle") == {"idle": 3}
    given.end()
    assert problems == [
        "top.totl: unknown key; did you mean 'total'?",
        "top.xyz: unknown key",
    ]


def test_tables_have_their_place(table, problems):
    given = table({"one": {"x": 1}, "many": [{"x": 1}, {"x": 2}], "named": {"a": {}, "b": {}}}, "")
    inner = given.table("one")
    assert inner is not None
    assert (inner.path, inner.at("x"), inner.values) == ("one", "one.x", {"x": 1})
    assert [each.path for each in given.tables("many")] == ["many[0]", "many[1]"]
    assert {name: each.path for name, each in given.named("named").items()} == {
        "a": "named.a",
        "b": "named.b",
    }
    assert given.table("none") is None
    assert given.tables("nothing") == []
    assert given.named("nobody") == {}
    other = given.table("one", {"y": 2})
    assert other is not None
    assert (other.path, other.values) == ("one", {"y": 2})
    given.end()
    assert problems == []


def test_what_is_no_table_is_told(table, problems):
    given = table({"one": 5, "many": {"x": 1}, "mixed": [{}, 1], "named": {"a": {}, "b": 1}})
    assert given.table("one") is None
    assert given.tables("many") == given.tables("mixed") == []
    assert set(given.named("named")) == {"a"}
    assert problems == [
        "top.one: must be a table, not 5",
        "top.many: must be tables, each headed [[top.many]], not {'x': 1}",
        "top.mixed: must be tables, each headed [[top.mixed]], not [{}, 1]",
        "top.named.b: must be a table, not 1",
    ]


def test_every_wrong_value_is_told(table, problems):
    given = table({})
    assert given.make(Timeouts, {"connect": 1.5}) == Timeouts(connect=1.5)
    assert given.make(Timeouts, {"connect": -1, "idle": 3, "total": "x"}) is None
    assert problems == [
        "top.connect: must be a finite number > 0, not -1",
        "top.total: must be a finite number > 0, not 'x'",
    ]


def test_values_that_do_not_fit_together_are_told_of_their_table(table, problems):
    given = table({})
    assert given.make(HttpCache, {"max_body": 1 << 27, "max_bytes": 1 << 28}) is not None

    def pair(*, low: int = 0, high: int = 9) -> tuple[int, int]:
        if low > high:
            raise ValueError(f"low must be at most high, not {low}")
        return low, high

    assert given.make(pair, {"low": 5, "high": 4}) is None
    assert problems == ["top: low must be at most high, not 5"]


def test_what_is_needed_and_missing_is_told_beside_the_rest(table, problems):
    given = table({}, "routes[0]")
    assert given.make(Route, {"path": "x", "host": "a:b"}, path="/", to="service") is None
    assert [each.partition(":")[0] for each in problems] == [
        "routes[0].to",
        "routes[0].path",
        "routes[0].host",
    ]
    problems.clear()
    assert given.make(Route, {"path": "/"}, path="/", to="service") is None
    assert problems == ["routes[0].to: is missing"]
