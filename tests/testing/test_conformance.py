"""The door of the conformance suites: all of them, by class and by case."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.testing import conformance
from aiopatterns.testing.conformance import Case, Conformance, KvConformance, cases, suites
from tests.testing.homes import OnMemory, OnRedis

SUITES = [suite for each in suites.values() for suite in each]


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def test_every_suite_is_named_and_exported():
    exported = [getattr(conformance, name) for name in conformance.__all__]
    found = {each for each in exported if isinstance(each, type) and issubclass(each, Conformance)}
    assert found == {Conformance, *SUITES}


@pytest.mark.promise("backends-conformance")
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.__name__)
def test_every_suite_runs_on_memory_and_on_redis(suite):
    subject = suite.__module__.rpartition(".")[2]
    module = importlib.import_module(f"tests.testing.test_{subject}")
    assert issubclass(module.TestMemory, (OnMemory, suite))
    assert module.TestMemory.__mro__[1:3] == (OnMemory, suite)
    assert module.TestRedis.__mro__[1:3] == (OnRedis, suite)
    tests = {name for name in vars(suite) if name.startswith("test_")}
    assert len(tests) >= 10
    assert tests.isdisjoint(vars(module.TestMemory)), "a test is not to be changed here"
    assert tests.isdisjoint(vars(module.TestRedis))


def test_every_case_says_what_it_holds():
    all_cases = cases()
    assert len(all_cases) == len(set(all_cases)) > 250
    assert all(len(case.sentence) > 10 for case in all_cases)
    assert {case.suite for case in all_cases} == set(SUITES)


def test_cases_of_some_protocols():
    assert {case.suite for case in cases("kv")} == {KvConformance}
    assert set(cases("kv", "lease")) == {*cases("kv"), *cases("lease")}
    case = cases("kv")[0]
    assert str(case) == "KvConformance.test_an_absent_key_has_no_value"
    assert case.sentence == '``get``: "Return the value of ``key``, or None.".'


@pytest.mark.promise("testing-bad-input")
def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"subject must be one of .*'kv'"):
        cases(wrong("nonsense"))
    with pytest.raises(ValueError, match="unit must be"):
        cases("kv", unit=0)


class Units(Conformance):
    async def test_unit(self, backend):
        backend.append(self.unit)


async def test_a_case_is_awaited_with_a_backend():
    seen: list[float] = []
    await Case(Units, "test_unit")(wrong(seen))
    await Case(Units, "test_unit", 0.5)(wrong(seen))
    assert seen == [Conformance.unit, 0.5]


async def test_cases_need_no_pytest():
    for case in cases("lease", unit=0.01):
        async with open_backend("memory://") as backend:
            await case(backend)


class Forgetful:
    """A backend whose keys are gone at once."""

    def __init__(self, backend):
        self.kv = self
        self.set = backend.kv.set

    async def get(self, key):
        return None


async def test_a_wrong_backend_fails():
    async with open_backend("memory://") as backend:
        failed = Case(KvConformance, "test_any_bytes_come_back_as_they_were")
        with pytest.raises(AssertionError):
            await failed(wrong(Forgetful(backend)))
        await failed(backend)
