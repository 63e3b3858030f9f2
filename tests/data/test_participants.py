"""What a participant is: its name, and the three protocols."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.data import (
    CommitsAlone,
    LastResource,
    MemoryParticipant,
    Participant,
    PostgresParticipant,
    RedisParticipant,
    SqliteLastResource,
    SqliteLog,
    SqliteParticipant,
)
from aiopatterns.data.participants import participant_name


@pytest.mark.parametrize("name", ["a", "shop_1", "North-2", "x" * 40])
def test_names_that_databases_take(name):
    assert participant_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 41, "a b", "a.b", "a'b", "ü", "a\n"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="name must be"):
        participant_name(name)


def test_a_name_is_text():
    unfit: Any = 7
    with pytest.raises(TypeError, match="name"):
        participant_name(unfit)


def test_who_can_do_what(tmp_path):
    log = SqliteLog(tmp_path / "log.db")
    last = SqliteLastResource("last", log)
    others: list[Any] = [
        MemoryParticipant("memory"),
        RedisParticipant("redis", "memory://"),
        SqliteParticipant("sqlite", tmp_path / "a.db"),
        PostgresParticipant("postgres", "host=nowhere"),
    ]
    for each in [*others, last]:
        assert isinstance(each, Participant)
        assert isinstance(each, CommitsAlone)
    assert isinstance(last, LastResource)
    assert not [each for each in others if isinstance(each, LastResource)]
