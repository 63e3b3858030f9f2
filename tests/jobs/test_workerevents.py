from __future__ import annotations

from aiopatterns.core.telemetry import Event
from aiopatterns.jobs import workerevents


def test_names_are_dotted_and_each_is_there_once():
    events = [getattr(workerevents, each) for each in workerevents.__all__]
    assert all(issubclass(each, Event) for each in events)
    names = [each.name for each in events if each is not workerevents.AttemptEvent]
    assert len({*names}) == len(names)
    assert all(each.startswith(("aiopatterns.job.", "aiopatterns.worker.")) for each in names)
    assert {each.level for each in events} <= {"debug", "info", "warning", "error"}
