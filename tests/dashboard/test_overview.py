from __future__ import annotations

import math

import msgspec

from aiopatterns.dashboard.overview import Overview
from tests.dashboard.views import overview, owner, queue, worker


def test_an_overview_goes_to_the_page_and_back():
    seen = overview(queues=[queue("a")], workers=[worker("1")], owners=[owner("2", "open")])
    data = msgspec.json.encode(seen)
    assert msgspec.json.decode(data, type=Overview) == seen
    assert set(msgspec.json.decode(data)) == {
        "at", "backend", "actions", "queues", "workers", "owners", "services", "streams", "flows",
    }  # fmt: skip


def test_what_is_no_number_of_json_is_null():
    data = msgspec.json.encode(queue("a", p50=math.inf, p99=math.nan))
    assert b'"p50":null,"p99":null' in data
