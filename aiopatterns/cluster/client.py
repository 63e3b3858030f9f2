"""ServiceClient: calls of one service, each attempt on an endpoint that is worth it.

::

    client.call(fn)
      outer policies          fallback, total timeout, retry, hedge: around all attempts
        balancer.pick         one endpoint; those that this call has tried are left out
          inner policies      breaker, limits, timeout of the attempt: around this one
            fn(endpoint)

Where the stack is split decides what the balancer learns. The timeout of an attempt belongs inside
the pick, or an endpoint that hangs would never be seen to fail; a retry belongs outside, or all
its attempts would go to one endpoint. So the stack is split behind the innermost of its policies
that makes several calls out of one, or answers in their place: retry, hedge, fallback, idempotency,
single flight. A stack without one is all inside.

Guarantees:

* Each attempt picks anew, and none goes where this call has been while another is in use.
* A call begins without waiting, but for the first of all, which asks the registry, and one call in
  each second, which asks it again and waits for a quarter of a second at most. With a balancer, none
  waits.

Not guaranteed: that ``fn`` runs once; a retry repeats it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar, final

from aiopatterns.cluster.asking import Asking
from aiopatterns.cluster.balancer import LoadBalancer
from aiopatterns.cluster.ejection import Ejection
from aiopatterns.cluster.instance import service_name
from aiopatterns.cluster.pool import Rules
from aiopatterns.cluster.poweroftwo import PowerOfTwo
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.core.tracing import NO_SPAN, Endpoint, tracer
from aiopatterns.core.validate import async_function, instance
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiopatterns.cluster.instance import ServiceInstance
    from aiopatterns.cluster.pool import BalancerStatistics
    from aiopatterns.cluster.strategy import Strategy
    from aiopatterns.core.tracing import Span
    from aiopatterns.core.types import Key

__all__ = ["ServiceClient"]

T = TypeVar("T")

_TWO: Final = PowerOfTwo()
# Policies that belong around the pick, with all that is outside of them.
_OUTER: Final = frozenset({"retry", "hedge", "fallback", "idempotency", "singleflight"})


@final
class ServiceClient:
    """Calls a service: picks an endpoint, applies policies, reports how it went.

    Args:
        service: Name of the service.
        source: Who knows its endpoints: a registry, or a balancer with settings of its own.
            Either has to be open when a call is made.
        stack: What may happen to a call: a ``Stack`` or a single policy.
        strategy: Who gets the next call, by default the better of two; a balancer has its own.

    Raises:
        ValueError: ``service`` can be no name, or the balancer is of another service.
        TypeError: A value is of another type, or there is a strategy beside a balancer.

    A client has no task and is not opened. Policies outside the pick are given ``key`` as their
    call's only argument, those inside the endpoint.

    Example::

        users = ServiceClient("users", registry, stack=Stack(Retry(on=OSError), Timeout(2)))


        async def fetch(endpoint: ServiceInstance) -> bytes:
            return await get(f"http://{endpoint.address}/users/7")


        body = await users.call(fetch)
    """

    __slots__ = ("_asking", "_inner", "_outer", "_source", "service")

    def __init__(
        self,
        service: str,
        source: ServiceRegistry | LoadBalancer,
        *,
        stack: Policy | None = None,
        strategy: Strategy | None = None,
    ) -> None:
        self.service: str = service_name("service", service)
        if stack is not None:
            instance("stack", stack, Policy, "a Stack or another policy")
        self._outer, self._inner = _split(stack)
        self._asking: Asking | None = None
        self._source: LoadBalancer | Asking
        if isinstance(source, LoadBalancer):
            self._source = _checked(source, service, strategy)
        else:
            kind = "a ServiceRegistry or a LoadBalancer"
            registry = instance("source", source, ServiceRegistry, kind)
            rules = Rules(service, _TWO if strategy is None else strategy, Ejection())
            self._source = self._asking = Asking(registry, rules)

    def __repr__(self) -> str:
        return f"ServiceClient({self.service!r})"

    async def call(
        self, fn: Callable[[ServiceInstance], Awaitable[T]], *, key: Key | None = None
    ) -> T:
        """Run ``fn(endpoint)`` under the stack, each attempt on an endpoint picked for it.

        Args:
            fn: Async function of the endpoint.
            key: What the call is about, for ``ConsistentHash`` and for policies that go by it.

        Returns:
            What ``fn`` returned.

        Raises:
            NoEndpointError: There is no endpoint.
            ClosedError: The registry or balancer is not open.
            BackendError: The registry's backend does not answer, and nothing is known.
            Exception: What ``fn`` or a policy raised.
            TypeError: ``fn`` is no async function.

        Cancellation: passes; the attempt under way says nothing about its endpoint.

        Complexity: about 3 us and what the policies cost.
        """
        async_function("fn", fn)
        source, asking, inner = self._source, self._asking, self._inner
        tried: list[str] = []

        async def attempt(key: Key | None) -> T:
            if asking is not None:
                await asking.refresh()
            if tried:
                _forgive(tried, source.usable)
            async with source.pick(key, tried) as endpoint:
                tried.append(endpoint.id)
                with _span(self.service, endpoint):
                    return await (fn(endpoint) if inner is None else inner.call(fn, endpoint))

        outer = self._outer
        return await (attempt(key) if outer is None else outer.call(attempt, key))

    def statistics(self) -> BalancerStatistics:
        """Return what is known of the endpoints, and how calls of them went."""
        return self._source.statistics()


def _span(service: str, endpoint: ServiceInstance) -> Span:
    """Begin the span of one attempt."""
    found = tracer()
    if found is None:
        return NO_SPAN
    return found.start(Endpoint(service, endpoint.host, endpoint.port))


def _checked(balancer: LoadBalancer, service: str, strategy: Strategy | None) -> LoadBalancer:
    """Return the balancer, if it is of this service and the only one that has a strategy."""
    if balancer.name != service:
        msg = f"source must be a balancer of {service!r}, not of {balancer.name!r}"
        raise ValueError(msg)
    if strategy is not None:
        msg = f"strategy must be None beside a balancer, which has its own, not {strategy!r}"
        raise TypeError(msg)
    return balancer


def _split(stack: Policy | None) -> tuple[Policy | None, Policy | None]:
    """Return the policies around all attempts, and those around each."""
    if stack is None:
        return None, None
    policies = stack.policies if isinstance(stack, Stack) else (stack,)
    outer = max((at for at, each in enumerate(policies, 1) if each.kind in _OUTER), default=0)
    around, inside = policies[:outer], policies[outer:]
    return Stack(*around) if around else None, Stack(*inside) if inside else None


def _forgive(tried: list[str], usable: tuple[ServiceInstance, ...]) -> None:
    """Forget what was tried if nothing else is in use; all but the last, if there is a choice."""
    if all(each.id in tried for each in usable):
        del tried[: -1 if len(usable) > 1 else None]
