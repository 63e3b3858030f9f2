"""Figures of owners as gauges: which become one, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from aiopatterns.contrib.promlabels import MAX_NAMES
from aiopatterns.contrib.promowners import OwnerFigures, kind_of
from aiopatterns.core.errors import ClosedError
from aiopatterns.jobs import JobQueue
from aiopatterns.resilience import Bulkhead
from tests.contrib.test_prometheus import sample, scraped


class State(Enum):
    OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class Figures:
    in_flight: int = 3
    ratio: float = 0.5
    ready: bool = True
    state: State = State.OPEN
    answers: Any = None
    text: str = "no figure"
    nothing: None = None


class Named(NamedTuple):
    calls: int = 1


class Struct(msgspec.Struct, kw_only=True):
    calls: int = 2


class MyOwner:
    def __init__(self, record: object, name: Any = "a") -> None:
        self.record = record
        self.name = name

    def statistics(self) -> object:
        if isinstance(self.record, Exception):
            raise self.record
        return self.record


def figures(owners: Any) -> dict[Any, float]:
    registry = CollectorRegistry()
    registry.register(OwnerFigures(owners))
    return scraped(registry)


def test_numbers_states_and_mappings_become_gauges_and_nothing_else():
    record = Figures(answers={200: 17, 404: 2, "who": "nobody"})
    assert figures([MyOwner(record)]) == {
        sample("aiopatterns_my_owner_in_flight", name="a"): 3.0,
        sample("aiopatterns_my_owner_ratio", name="a"): 0.5,
        sample("aiopatterns_my_owner_ready", name="a"): 1.0,
        sample("aiopatterns_my_owner_state", name="a", value="open"): 1.0,
        sample("aiopatterns_my_owner_answers", name="a", key="200"): 17.0,
        sample("aiopatterns_my_owner_answers", name="a", key="404"): 2.0,
    }


@pytest.mark.parametrize(("record", "calls"), [(Named(), 1), (Struct(), 2)])
def test_whichever_record_it_is(record, calls):
    assert figures([MyOwner(record)]) == {sample("aiopatterns_my_owner_calls", name="a"): calls}


def test_a_mapping_is_cut_off_where_labels_would_be_too_many():
    record = Figures(answers=dict.fromkeys(range(MAX_NAMES + 9), 1))
    found = figures([MyOwner(record)])
    assert len([each for each in found if "answers" in each[0]]) == MAX_NAMES


def test_an_owner_that_has_none_now_is_left_out_and_the_others_are_not():
    owners = [MyOwner(ClosedError("closed"), "a"), MyOwner(Named(), "b"), MyOwner(object(), "c")]
    assert list(figures(owners)) == [sample("aiopatterns_my_owner_calls", name="b")]


def test_a_mapping_of_owners_gives_names_to_those_without():
    found = figures({"db": Bulkhead(7)})
    assert sample("aiopatterns_bulkhead_in_flight", name="db") in found


def test_kinds_are_the_names_of_classes():
    assert kind_of(Bulkhead(1)) == "bulkhead"
    assert kind_of(MyOwner(None)) == "my_owner"
    assert kind_of(JobQueue("a")) == "job_queue"


@pytest.mark.parametrize(
    ("owners", "error", "text"),
    [
        ([MyOwner(Named()), MyOwner(Named())], ValueError, "two of my_owner are 'a'"),
        ([MyOwner(Named(), None)], TypeError, "owners must have a name"),
        ([MyOwner(Named(), "")], ValueError, "owners' names must"),
        ({"a": object()}, TypeError, r"owners must have statistics\(\)"),
        ([JobQueue("a")], TypeError, "queues of jobs are asked by QueueGauges"),
    ],
)
def test_what_is_refused(owners, error, text):
    with pytest.raises(error, match=text):
        OwnerFigures(owners)
