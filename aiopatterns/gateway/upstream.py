"""Upstreams: the endpoints behind one target of routes, and one attempt on one of them.

::

    attempt --> pick an endpoint --> its circuit --> its bulkhead --> transport --> head of an answer
                     ^                    |              |                |
                     '---- another -------'--------------'                '--> UpstreamError

The balancer is told how an attempt went when the head of the answer is there, so that a client that
reads slowly makes no endpoint look slow. Answers of 500 and above, and none at all, are failures for
the balancer and for the circuit; what the client does, and a cancellation, says nothing.

Guarantees: an endpoint whose circuit is open, or that has no place left, is passed over at once while
there is another. Circuits and bulkheads are those of an endpoint, shared by all routes with the same
rules, and outlast snapshots of the registry and reloads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar, final

from aiopatterns.core.errors import NoEndpointError, RejectedError, UpstreamError
from aiopatterns.gateway.site import Site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from aiopatterns.cluster.balancer import LoadBalancer
    from aiopatterns.cluster.instance import ServiceInstance
    from aiopatterns.cluster.pick import Pick
    from aiopatterns.gateway.policy import BreakerRules
    from aiopatterns.resilience.judge import Outcome
    from aiopatterns.resilience.permit import Permit

__all__ = ["Answered", "Upstream", "judge"]

# Endpoints that are gone are forgotten when there are so many more than in use.
_SPARE: Final = 64
_FAILED: Final = 500


class Answered(Protocol):
    """What an attempt brings: the head of an answer, at least."""

    @property
    def status(self) -> int:
        """Its status."""
        ...


A = TypeVar("A", bound=Answered)


@final
class Upstream:
    """The endpoints of a service, or the one of a base URL.

    Args:
        target: The name of the service, or the base URL.
        balancer: Who picks; None for a base URL.
        rules: When an endpoint is not asked.
        bulkhead: Requests in flight to one endpoint at most.
    """

    __slots__ = ("_bulkhead", "_only", "_rules", "_sites", "balancer", "target")

    def __init__(
        self,
        target: str,
        balancer: LoadBalancer | None,
        rules: BreakerRules | None,
        bulkhead: int | None,
    ) -> None:
        self.target: str = target
        self.balancer: LoadBalancer | None = balancer
        self._rules = rules
        self._bulkhead = bulkhead
        self._sites: dict[str, Site] = {}
        self._only: Site | None = None
        if balancer is None:
            self._only = self._sites[target] = Site.of_url(target, rules, bulkhead)

    @property
    def sites(self) -> Collection[Site]:
        """The endpoints that were asked lately."""
        return self._sites.values()

    async def attempt(
        self, send: Callable[[Site], Awaitable[A]], tried: list[str]
    ) -> tuple[A, Site]:
        """Make one attempt on an endpoint.

        Args:
            send: Sends the request to an endpoint and returns the head of its answer.
            tried: Ids of the instances that are not wanted while there are others; one that fails
                is added.

        Returns:
            The answer, and where it comes from: there a place is held, to be released when the body
            has ended.

        Raises:
            UpstreamError: The endpoint gave no answer.
            RejectedError: No endpoint may be asked.

        Cancellation: says nothing about the endpoint; what it held is given back.
        """
        pick, site = None, self._only
        if site is None:
            pick, site, permit = await self._claim(tried)
        else:
            permit = site.admit()
        try:
            incoming = await send(site)
        except BaseException as error:
            tried.append(site.id)
            _ended(site, permit, error)
            if pick is not None:
                await pick.__aexit__(type(error), error, None)
            raise
        failed = incoming.status >= _FAILED
        if permit is not None:
            permit.record("failure" if failed else "success")
        if pick is not None:
            bad = _bad(site, incoming) if failed else None
            await pick.__aexit__(None if bad is None else UpstreamError, bad, None)
        return incoming, site

    async def _claim(self, tried: list[str]) -> tuple[Pick, Site, Permit | None]:
        """Pick an endpoint that takes the request."""
        balancer = self.balancer
        passed: list[str] = []
        refusal: RejectedError | None = None
        assert balancer is not None
        while True:
            pick = balancer.pick(None, [*tried, *passed] if tried or passed else ())
            try:
                site = self._site(await pick.__aenter__())
            except NoEndpointError:
                if not tried:
                    raise refusal or NoEndpointError(name=self.target) from None
                tried.clear()  # rather the same again than none
                continue
            try:
                return pick, site, site.admit()
            except RejectedError as error:
                await pick.__aexit__(type(error), error, None)
                passed.append(site.id)
                refusal = _sooner(refusal, error)

    def _site(self, instance: ServiceInstance) -> Site:
        """Return the endpoint of an instance."""
        site = self._sites.get(instance.id)
        if site is not None and site.instance is instance:
            return site
        if site is not None and site.serves(instance):
            site.instance = instance
            return site
        site = self._sites[instance.id] = Site.of_instance(instance, self._rules, self._bulkhead)
        self._forget()
        return site

    def _forget(self) -> None:
        """Drop endpoints that are long gone, when there are many."""
        assert self.balancer is not None
        used = {each.id for each in self.balancer.usable}
        if len(self._sites) > 2 * len(used) + _SPARE:
            self._sites = {each: self._sites[each] for each in used & self._sites.keys()}


def judge(error: Exception) -> Outcome:
    """Say what an error of an attempt means for the endpoint; for a balancer."""
    return "failure" if isinstance(error, UpstreamError) else "ignore"


def _ended(site: Site, permit: Permit | None, error: BaseException) -> None:
    """Tell the circuit that there was no answer, and give everything back."""
    site.release()
    if permit is None:
        return
    if isinstance(error, UpstreamError):
        permit.conclude(None, error)
    else:
        permit.drop()


def _bad(site: Site, incoming: Answered) -> UpstreamError:
    """Return the error that an answer amounts to, for who counts errors."""
    msg = f"{site.name}: answered {incoming.status}"
    return UpstreamError(msg, name=site.name, kind="invalid", sent=True)


def _sooner(one: RejectedError | None, other: RejectedError) -> RejectedError:
    """Return the refusal that ends first."""
    if one is None or one.retry_after is None:
        return other
    return one if other.retry_after is None or one.retry_after <= other.retry_after else other
