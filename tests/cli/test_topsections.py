from __future__ import annotations

import pytest

from aiopatterns.cli.topsections import Section, aligned, sections
from tests.cli.fleets import fleet, full, owner, queue, worker


def rows(seen, title: str, **more) -> list[dict[str, str]]:
    (found,) = [each for each in sections(seen, **more) if each.title == title]
    return [dict(zip(found.heads, row, strict=True)) for row in found.rows]


def test_what_is_not_there_has_no_section():
    assert sections(fleet()) == []
    assert [each.title for each in sections(full())] == [
        "queues", "workers", "services", "streams", "owners",
    ]  # fmt: skip


def test_queues():
    mail, paused = rows(full(), "queues")
    assert mail == {
        "queue": "mail", "queued": "1,200", "scheduled": "3", "waiting": "0", "running": "7",
        "dead": "1", "workers": "2", "jobs/s": "12", "p50": "12.3 ms", "p99": "1.5 s",
    }  # fmt: skip
    assert paused["queue"] == "print (paused)"
    assert rows(full(), "queues", paced=False)[0]["jobs/s"] == "-"


def test_workers():
    (found,) = rows(full(), "workers")
    assert found == {
        "worker": "mail", "process": "here:41", "age": "1 min", "done": "1,234", "failed": "0",
        "retried": "2", "running": "7", "p50": "10 ms", "p99": "200 ms",
    }  # fmt: skip


def test_a_worker_whose_figures_are_missing_is_there_all_the_same():
    (found,) = rows(fleet(workers=[worker(p50="soon")]), "workers")
    assert (found["done"], found["p50"]) == ("-", "-")


@pytest.mark.parametrize(
    ("age", "text"),
    [(0.4, "0 s"), (59, "59 s"), (120, "2 min"), (9_000, "2.5 h"), (200_000, "2.3 d")],
)
def test_ages(age, text):
    assert rows(fleet(workers=[worker(age=age)]), "workers")[0]["age"] == text


def test_services_streams_and_owners():
    up, stale = rows(full(), "services")
    assert (up["address"], up["state"], stale["state"]) == ("10.0.0.1:80", "up", "unreadable")
    assert rows(full(), "streams") == [
        {"stream": "orders", "group": "billing", "lag": "42", "in hand": "3"}
    ]
    (found,) = rows(full(), "owners")
    assert found["figures"] == "state open  calls 5  ratio 0.25  busy yes"


def test_only_so_many_figures_of_an_owner_are_shown():
    many = {f"figure{each}": each for each in range(20)}
    (found,) = rows(fleet(owners=[owner(**many, last=False)]), "owners")
    assert found["figures"].count("figure") == 6


@pytest.mark.promise("cli-top-hostile")
def test_names_of_others_cannot_move_the_cursor_and_are_not_endless():
    evil = queue("\x1b[2J\x07" + "x" * 500)
    (found,) = rows(fleet(queues=[evil]), "queues")
    assert found["queue"].isprintable()
    assert len(found["queue"]) == 40


def test_columns_are_aligned():
    table = Section("t", ("name", "n"), (("a", "1"), ("bcdefg", "1,000")))
    assert [*aligned(table)] == ["name        n", "a           1", "bcdefg  1,000"]
