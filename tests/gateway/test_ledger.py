"""Figures of a gateway."""

from __future__ import annotations

from aiopatterns.gateway.ledger import EndpointFigures, GatewayStatistics, Ledger
from aiopatterns.gateway.policy import BreakerRules
from aiopatterns.gateway.upstream import Upstream
from aiopatterns.resilience.circuitstate import CircuitState


def test_every_request_is_counted_once():
    ledger = Ledger()
    for status, complete in [(200, True), (200, True), (502, True), (200, False), (499, True)]:
        ledger.begin()
        ledger.end(status, complete=complete)
    ledger.begin()
    ledger.retried()
    upstreams = [
        Upstream("http://a", None, BreakerRules(), 3),
        Upstream("http://b:8", None, None, None),
    ]
    assert ledger.statistics(upstreams, {}) == GatewayStatistics(
        requests=6,
        in_flight=1,
        answers={200: 3, 502: 1, 499: 1},
        cut_short=1,
        retries=1,
        sockets=0,
        endpoints=(
            EndpointFigures("http://a", "a:80", CircuitState.CLOSED, 0),
            EndpointFigures("http://b:8", "b:8", None, None),
        ),
        caches={},
    )
