"""A registry: policies by name, and their settings changed while calls run.

Limits and thresholds are guesses until a system is under load. A registry gives each policy a name
and its users a *handle* to it; a reload puts another policy behind the handle, at once and for
everybody, without a restart::

    handle = policies.define("billing", Stack(Retry(OSError), CircuitBreaker("billing")))

    @handle                                    .-> old policy: calls that run go on to their end
    async def charge(): ...   ----- handle ----|
                                               '-> new policy: every call from now on
    policies.reload("billing", Stack(Retry(OSError, attempts=2), CircuitBreaker("billing")))

What a policy knows is kept where it still means the same: a policy of the new definition takes
over the state of one of the old definition that is of its kind and counts the same thing.

==============  ======================================  =======================================
policy          keeps its state if these are unchanged  free to change
==============  ======================================  =======================================
CircuitBreaker  name and window                         thresholds, break, probes, judge
rate limiters   kind, rate and burst                    key function, longest wait
Bulkhead        order                                   limit, queue, longest wait
AdaptiveLimit   kind of algorithm                       its settings, what is a drop
Throttle        window                                  factor, cap, what is a failure
others          as their ``adopt`` says; those without  everything
                one have no state to keep
==============  ======================================  =======================================

State that is kept is shared with the calls that still run, so nothing is lost or counted twice: a
circuit that is open stays open, and its probes that are out report to it. Anything else begins
anew.

Guarantees: a reload is one step, synchronous, and either happens whole or not at all. A call runs
under one policy from its beginning to its end. A handle stays the same for as long as the registry
lives.

Not guaranteed: that a policy which was handed to :meth:`PolicyRegistry.reload` and had decorated
something before shares its state with that; decorate by the handle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar, final

from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import instance, text
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.stack import Stack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator

__all__ = ["PolicyHandle", "PolicyRegistry", "PolicyReloaded"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PolicyReloaded(Event):
    """A policy was put in the place of another.

    Args:
        policy: The name it is known by.
        kept: How many of the policies in it go on with the state of one before.
    """

    name: ClassVar[str] = "aiopatterns.policy.reloaded"

    policy: str
    kept: int


@final
class PolicyRegistry:
    """Policies by name; an object of yours, of which there may be several.

    Example::

        policies = PolicyRegistry()
        billing = policies.define("billing", Stack(Timeout(10), Retry(OSError)))


        @billing
        async def charge(amount: int) -> str: ...


        policies.reload("billing", Stack(Timeout(5), Retry(OSError, attempts=2)))
    """

    __slots__ = ("_handles",)

    def __init__(self) -> None:
        self._handles: dict[str, PolicyHandle] = {}

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(tuple(self._handles))

    def define(self, name: str, policy: Policy) -> PolicyHandle:
        """Give ``policy`` a name.

        Args:
            name: A name that is not taken.
            policy: What stands behind it, for now.

        Returns:
            The handle, which is itself a policy.

        Raises:
            ValueError: The name is taken.
        """
        if text("name", name) in self._handles:
            msg = f"name {name!r} is defined already; use reload to put another policy behind it"
            raise ValueError(msg)
        handle = self._handles[name] = PolicyHandle(name, _check(policy))
        return handle

    def get(self, name: str) -> PolicyHandle:
        """Return the handle of ``name``, always the same.

        Raises:
            KeyError: There is no such name.
        """
        try:
            return self._handles[name]
        except KeyError:
            known = ", ".join(map(repr, self._handles)) or "none"
            msg = f"no policy is defined as {name!r}; defined: {known}"
            raise KeyError(msg) from None

    def reload(self, name: str, policy: Policy) -> None:
        """Put ``policy`` behind ``name``, for every call that begins from now on.

        State is kept by the rule in the module's text. Calls that run end under the policy they
        began with.

        Args:
            name: A name that is defined.
            policy: What is to stand behind it.

        Raises:
            KeyError: There is no such name.
            ValueError: ``policy`` is the handle of ``name``, or holds it.

        Complexity: O(policies in both); a decorated function is compiled anew by its next call.
        """
        handle = self.get(name)
        if _leads_to(_check(policy), handle):
            msg = f"policy must not hold the handle that it is to stand behind, {name!r}"
            raise ValueError(msg)
        handle.swap(policy)


@final
class PolicyHandle(Policy):
    """The policy that stands behind a name; made by :meth:`PolicyRegistry.define`.

    Args:
        name: The name.
        policy: What stands behind it at first.
    """

    __slots__ = ("_name", "_policy", "kind")

    def __init__(self, name: str, policy: Policy) -> None:
        self._name = name
        self._policy = policy
        #: That of the policy behind it, so that a stack can judge where it stands.
        self.kind: str = policy.kind

    def __repr__(self) -> str:
        return f"PolicyHandle({self._name!r}, {self._policy!r})"

    @property
    def name(self) -> str:
        """The name, as given."""
        return self._name

    @property
    def policy(self) -> Policy:
        """What stands behind it now."""
        return self._policy

    def swap(self, policy: Policy) -> None:
        """Put ``policy`` behind the name; see :meth:`PolicyRegistry.reload`."""
        kept = _carry_over(self._policy, policy)
        self._policy = policy
        self.kind = policy.kind
        if listening():
            emit(PolicyReloaded(self._name, kept))

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that calls ``fn`` under the policy that stands here when it begins."""
        policy = self._policy
        compiled = policy.wrap(fn)

        async def named(*args: P.args, **kwargs: P.kwargs) -> T:
            nonlocal policy, compiled
            if policy is not (current := self._policy):
                compiled = current.wrap(fn)  # first: it may refuse, and does so each time
                policy = current
            return await compiled(*args, **kwargs)

        return named

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return a stream function under the policy that stands here when a stream begins."""
        policy = self._policy
        compiled = policy.wrap_stream(fn)

        async def named(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
            nonlocal policy, compiled
            if policy is not (current := self._policy):
                compiled = current.wrap_stream(fn)
                policy = current
            stream = compiled(*args, **kwargs)
            try:
                async for item in stream:
                    yield item
            finally:
                await stream.aclose()

        return named

    def calls(self) -> float:
        """Return how often one call may run what is inside, at most, as of now."""
        return self._policy.calls()

    def bound(self, inner: float) -> float:
        """Return the most seconds a call may take, as of now."""
        return self._policy.bound(inner)


def _check(policy: Policy) -> Policy:
    return instance("policy", policy, Policy, "a policy, such as a Retry or a Stack")


def _parts(policy: Policy) -> tuple[Policy, ...]:
    return policy.policies if isinstance(policy, Stack) else (policy,)


def _leads_to(policy: Policy, handle: PolicyHandle) -> bool:
    return any(
        each is handle or (isinstance(each, PolicyHandle) and _leads_to(each.policy, handle))
        for each in _parts(policy)
    )


def _carry_over(old: Policy, new: Policy) -> int:
    """Let each policy in ``new`` go on where one in ``old`` stands; return how many do.

    A policy of ``old`` is taken over once. One that is in both is itself and has all its state.
    """
    staying = set(map(id, _parts(old))) & set(map(id, _parts(new)))
    left = [each for each in _parts(old) if id(each) not in staying]
    kept = len(staying)
    for policy in _parts(new):
        if id(policy) in staying:
            continue
        found = next((each for each in left if policy.adopt(each)), None)
        if found is not None:
            left.remove(found)
            kept += 1
    return kept
