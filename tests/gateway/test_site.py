"""One endpoint: where it is, its circuit, its places."""

from __future__ import annotations

import pytest

from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.core.errors import BulkheadFullError, CircuitOpenError
from aiopatterns.gateway.policy import BreakerRules
from aiopatterns.gateway.site import Held, Site
from aiopatterns.resilience.trip import Consecutive, Trip
from tests.gateway.memory import Answer

TWICE = BreakerRules(Trip(Consecutive(2)))


@pytest.mark.parametrize(
    ("url", "name", "shown", "tls", "base"),
    [
        ("http://h", "h:80", b"h", False, b""),
        ("http://h:80/", "h:80", b"h", False, b""),
        ("http://h:8000/v2/", "h:8000", b"h:8000", False, b"/v2"),
        ("https://h", "h:443", b"h", True, b""),
        ("https://h:80", "h:80", b"h:80", True, b""),
        ("http://[::1]:8000", "[::1]:8000", b"[::1]:8000", False, b""),
    ],
)
def test_the_endpoint_of_a_base_url(url, name, shown, tls, base):
    site = Site.of_url(url, None, None)
    assert (site.name, site.id, site.shown, site.tls, site.base) == (name, name, shown, tls, base)
    assert "[" not in site.host
    assert site.admit() is None
    site.release()


def test_the_endpoint_of_an_instance():
    instance = ServiceInstance("users", "[::1]", 80, id="a", metadata={"scheme": "https"})
    site = Site.of_instance(instance, None, None)
    assert (site.host, site.port, site.tls, site.id) == ("::1", 80, True, "a")
    assert site.serves(
        ServiceInstance("users", "[::1]", 80, id="a", weight=7, metadata={"scheme": "https"})
    )
    assert not site.serves(
        ServiceInstance("users", "[::1]", 81, id="a", metadata={"scheme": "https"})
    )
    assert not site.serves(ServiceInstance("users", "[::1]", 80, id="a"))
    assert not Site.of_url("http://h", None, None).serves(instance)


def test_a_full_bulkhead_gives_back_the_place_in_the_circuit():
    site = Site.of_url("http://h", TWICE, 1)
    assert site.breaker is not None
    permit = site.admit()
    assert permit is not None
    with pytest.raises(BulkheadFullError, match="h:80 refused"):
        site.admit()
    assert site.breaker.statistics().in_flight == 1
    permit.record("success")
    site.release()
    for _ in range(2):
        permit = site.admit()
        assert permit is not None
        permit.record("failure")
        site.release()
    with pytest.raises(CircuitOpenError):
        site.admit()
    assert site.bulkhead is not None
    assert site.bulkhead.statistics().in_flight == 0


async def test_a_place_is_held_until_the_body_is_closed():
    site = Site.of_url("http://h", None, 1)
    site.admit()
    answer = Answer(200, (), [b"a", b"b"])
    held = Held(answer, site)
    assert [chunk async for chunk in held] == [b"a", b"b"]
    assert site.bulkhead is not None
    assert site.bulkhead.statistics().available == 0
    for _ in range(2):
        await held.aclose()
        assert site.bulkhead.statistics().available == 1
    assert answer.closed == 2
