"""One attempt on one of the endpoints behind a target."""

from __future__ import annotations

import pytest

from aiopatterns.cluster.balancer import LoadBalancer
from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.cluster.roundrobin import RoundRobin
from aiopatterns.core.errors import (
    BulkheadFullError,
    CircuitOpenError,
    NoEndpointError,
    RequestRefusedError,
    UpstreamError,
)
from aiopatterns.gateway.policy import BreakerRules
from aiopatterns.gateway.upstream import Upstream, judge
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.trip import Consecutive, Trip
from tests.gateway.memory import Answer, failing

TWICE = BreakerRules(Trip(Consecutive(2)), open_for=10)


def instances(count: int = 3, start: int = 0) -> list[ServiceInstance]:
    return [ServiceInstance("s", "h", 1 + n, id=f"i{n}") for n in range(start, start + count)]


def balancer(count: int = 3) -> LoadBalancer:
    return LoadBalancer(instances(count), "s", strategy=RoundRobin(), eject=None, judge=judge)


class Sender:
    """Answers by the name of the endpoint; a status, or an error."""

    def __init__(self, **told: int | BaseException) -> None:
        self.told = told
        self.asked: list[str] = []

    async def __call__(self, site):
        self.asked.append(site.id)
        told = self.told.get(site.id, 200)
        if isinstance(told, BaseException):
            raise told
        return Answer(told)


async def test_attempts_go_round_the_endpoints():
    send = Sender()
    async with balancer() as balance:
        upstream = Upstream("s", balance, TWICE, None)
        for _ in range(6):
            incoming, site = await upstream.attempt(send, [])
            assert incoming.status == 200
            assert site.name.startswith("h:")
    assert sorted(send.asked) == ["i0", "i0", "i1", "i1", "i2", "i2"]
    assert len(upstream.sites) == 3


async def test_one_that_failed_is_told_and_is_not_wanted_again():
    send = Sender(i0=failing(), i1=failing(), i2=failing())
    tried: list[str] = []
    async with balancer() as balance:
        upstream = Upstream("s", balance, TWICE, None)
        for n in range(3):
            with pytest.raises(UpstreamError):
                await upstream.attempt(send, tried)
            assert len(set(tried)) == n + 1
        with pytest.raises(UpstreamError):  # rather one of them again than none
            await upstream.attempt(send, tried)
        assert len(tried) == 1
        assert balance.statistics().failures == 4


@pytest.mark.promise("gateway-circuits")
async def test_a_circuit_opens_for_its_endpoint_alone():
    send = Sender(i1=500)
    async with balancer() as balance:
        upstream = Upstream("s", balance, TWICE, None)
        for _ in range(30):
            await upstream.attempt(send, [])
        assert send.asked.count("i1") == 2
        assert balance.statistics().failures == 2
        states = {site.id: site.breaker.state for site in upstream.sites if site.breaker}
    assert states == {"i0": CircuitState.CLOSED, "i1": CircuitState.OPEN, "i2": CircuitState.CLOSED}


async def test_when_all_circuits_are_open_the_first_to_close_is_told():
    async with balancer(2) as balance:
        upstream = Upstream("s", balance, TWICE, None)
        for _ in range(4):
            await upstream.attempt(Sender(i0=503, i1=503), [])
        for site in upstream.sites:
            assert site.breaker is not None
            site.breaker.open(5.0 if site.id == "i1" else 9.0)
        with pytest.raises(CircuitOpenError) as caught:
            await upstream.attempt(Sender(), [])
        assert caught.value.retry_after == pytest.approx(5.0, abs=0.5)
        assert balance.statistics().ignored > 0


async def test_an_isolated_circuit_says_nothing_about_when():
    async with balancer(2) as balance:
        upstream = Upstream("s", balance, TWICE, None)
        for _ in range(2):
            await upstream.attempt(Sender(), [])
        first, second = upstream.sites
        assert first.breaker is not None
        assert second.breaker is not None
        for open_, isolated in ((first, second), (second, first)):
            assert open_.breaker is not None
            assert isolated.breaker is not None
            open_.breaker.force(None)
            open_.breaker.open(3.0)
            isolated.breaker.force("isolated")
            with pytest.raises(CircuitOpenError) as caught:
                await upstream.attempt(Sender(), [])
            assert caught.value.retry_after == pytest.approx(3.0, abs=0.5)


async def test_a_full_endpoint_is_passed_over():
    async with balancer(2) as balance:
        upstream = Upstream("s", balance, None, 1)
        places = [await upstream.attempt(Sender(), []) for _ in range(2)]
        assert {site.id for _, site in places} == {"i0", "i1"}
        with pytest.raises(BulkheadFullError):
            await upstream.attempt(Sender(), [])
        places[0][1].release()
        assert (await upstream.attempt(Sender(), []))[1] is places[0][1]


async def test_nobody_to_ask():
    async with balancer(0) as balance:
        with pytest.raises(NoEndpointError):
            await Upstream("s", balance, None, None).attempt(Sender(), [])


@pytest.mark.promise("gateway-circuits")
@pytest.mark.parametrize(
    "error", [RequestRefusedError(status=413), KeyboardInterrupt(), ValueError()]
)
async def test_what_is_not_the_endpoints_fault_is_not_held_against_it(error):
    async with balancer(1) as balance:
        upstream = Upstream("s", balance, TWICE, 1)
        for _ in range(5):
            with pytest.raises(type(error)):
                await upstream.attempt(Sender(i0=error), [])
        assert balance.statistics().failures == 0
        assert (await upstream.attempt(Sender(), []))[0].status == 200


async def test_a_base_url_is_one_endpoint():
    upstream = Upstream("http://h:7/base", None, TWICE, None)
    send = Sender(**{"h:7": 500})
    for _ in range(2):
        assert (await upstream.attempt(send, []))[0].status == 500
    with pytest.raises(CircuitOpenError, match="h:7"):
        await upstream.attempt(send, [])
    bare = Upstream("http://h:7", None, None, None)
    for _ in range(30):
        with pytest.raises(UpstreamError):
            await bare.attempt(Sender(**{"h:7": failing("timeout", sent=True)}), [])


async def test_what_is_known_of_an_endpoint_outlasts_snapshots():
    async with balancer(2) as balance:
        upstream = Upstream("s", balance, TWICE, None)
        for _ in range(4):
            await upstream.attempt(Sender(i0=500), [])
        before = {site.id: site for site in upstream.sites}
        balance.update([ServiceInstance("s", "h", 1 + n, id=f"i{n}", weight=2) for n in range(2)])
        for _ in range(4):
            await upstream.attempt(Sender(), [])
        assert {site.id: site for site in upstream.sites} == before
        balance.update([ServiceInstance("s", "h", 99, id="i0")])  # another process under the name
        assert (await upstream.attempt(Sender(), []))[1] is not before["i0"]


async def test_endpoints_that_are_gone_are_forgotten():
    async with balancer(1) as balance:
        upstream = Upstream("s", balance, None, None)
        for n in range(300):
            balance.update(instances(1, start=n))
            await upstream.attempt(Sender(), [])
        assert len(upstream.sites) <= 80
