"""Conformance of :class:`~aiopatterns.backends.protocols.Limiter`: how many, and what it answers."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from anyio import create_task_group

from aiopatterns.core.rate import Grant, Rate
from aiopatterns.testing.conformance_base import Conformance, refusal, timely

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend

__all__ = ["LimiterConformance"]

#: So slow that nothing comes back within a test.
SLOW = Rate(5, per=3600)


class LimiterConformance(Conformance):
    """Tests of shared rates; see :class:`Conformance` for what a subclass brings."""

    async def test_the_amount_may_come_at_once(self, backend: Backend) -> None:
        """``burst``: "How much may be saved up ...; by default the rate's amount"."""
        limiter = backend.limiter("api")
        grants = [await limiter.acquire("k", SLOW) for _ in range(7)]
        assert [grant.allowed for grant in grants] == [True] * 5 + [False] * 2
        assert [grant.remaining for grant in grants] == [4, 3, 2, 1, 0, 0, 0]
        assert all(isinstance(grant, Grant) for grant in grants)

    async def test_the_answer_tells_the_times(self, backend: Backend) -> None:
        """``acquire`` returns "the answer, with the times until more is there"."""
        limiter = backend.limiter("api")
        for number in range(1, 6):
            grant = await limiter.acquire("k", SLOW)
            assert grant.retry_after == 0
            assert 720 * number - 60 < grant.reset_after <= 720 * number
        refused = await limiter.acquire("k", SLOW)
        assert 660 < refused.retry_after <= 720
        assert 3540 < refused.reset_after <= 3600

    async def test_the_sixth_of_five_waits_for_its_turn(self, backend: Backend) -> None:
        """A rate of 5 per 5 units gives one back each unit."""
        limiter, rate = backend.limiter("api"), Rate(5, per=self.life(5))
        refused = [grant for _ in range(6) if not (grant := await limiter.acquire("k", rate))[0]]
        for grant in refused:
            assert 0 < grant.retry_after <= self.life(1)
        await self.pause(1.2)
        assert (await limiter.acquire("k", rate)).allowed

    @timely
    async def test_refills_come_evenly(self, backend: Backend) -> None:
        """Limiter: "GCRA by the server's time": no more than the rate in the long run."""
        limiter, rate, key = backend.limiter("api"), Rate(1, per=self.life(2)), self.name("k")
        allowed: list[bool] = []
        for _ in range(8):
            allowed.append((await limiter.acquire(key, rate)).allowed)
            await self.pause(1)
        assert allowed[0]
        assert sum(allowed) in {3, 4}
        assert (True, True) not in set(pairwise(allowed))

    async def test_a_refused_call_takes_nothing(self, backend: Backend) -> None:
        """``acquire``: "A refused call takes nothing."."""
        limiter = backend.limiter("api")
        assert (await limiter.acquire("k", SLOW, cost=3)).remaining == 2
        for _ in range(10):
            assert not (await limiter.acquire("k", SLOW, cost=3)).allowed
        assert (await limiter.acquire("k", SLOW, cost=2)).allowed

    async def test_cost_counts(self, backend: Backend) -> None:
        """``cost``: "What this call takes, 0 or more; 0 only looks."."""
        limiter = backend.limiter("api")
        assert await _looks(backend) == 5
        assert (await limiter.acquire("k", SLOW, cost=1.5)).remaining == 3
        assert await _looks(backend) == 3
        assert await _looks(backend) == 3
        assert (await limiter.acquire("k", SLOW, cost=3.5)).allowed
        assert await _looks(backend) == 0
        assert not (await limiter.acquire("k", SLOW, cost=0.5)).allowed

    async def test_more_than_fits_is_never_allowed(self, backend: Backend) -> None:
        """``acquire``: "``cost`` above ``burst`` is never allowed, and ``retry_after`` ... infinite"."""
        limiter = backend.limiter("api")
        for cost, burst in ((5.5, None), (3, 2)):
            grant = await limiter.acquire("k", SLOW, cost=cost, burst=burst)
            assert not grant.allowed
            assert grant.retry_after == math.inf
        assert await _looks(backend) == 5

    async def test_burst_bounds_what_is_saved_up(self, backend: Backend) -> None:
        """``burst``: "How much may be saved up, 1 or more"."""
        limiter = backend.limiter("api")
        for burst, key in ((1, "one"), (3, "three"), (8, "eight")):
            grants = [await limiter.acquire(key, SLOW, burst=burst) for _ in range(10)]
            assert sum(grant.allowed for grant in grants) == burst

    async def test_a_rate_below_one_allows_one(self, backend: Backend) -> None:
        """``burst``: "by default the rate's amount (at least 1)"."""
        limiter, rate = backend.limiter("api"), Rate(0.5, per=3600)
        assert (await limiter.acquire("k", rate)).allowed
        refused = await limiter.acquire("k", rate)
        assert not refused.allowed
        assert 7140 < refused.retry_after <= 7200

    async def test_keys_and_names_are_apart(self, backend: Backend) -> None:
        """``key``: "Whose rate it is."."""
        for name, key in (("api", "a"), ("api", "b"), ("web", "a"), ("a", "api"), ("api:a", "b")):
            grants = [await backend.limiter(name).acquire(key, SLOW) for _ in range(6)]
            assert sum(grant.allowed for grant in grants) == 5

    async def test_concurrent_calls_share_one_rate(self, backend: Backend) -> None:
        """Limiter: "A rate over all processes", by an atomic step."""
        allowed: list[bool] = []

        async def ask() -> None:
            allowed.append((await backend.limiter("api").acquire("k", SLOW)).allowed)

        async with create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask)
        assert sum(allowed) == 5

    async def test_a_key_at_rest_is_as_good_as_new(self, backend: Backend) -> None:
        """``acquire``: "A key at rest is forgotten by itself."."""
        limiter, rate = backend.limiter("api"), Rate(5, per=self.life(1))
        assert (await limiter.acquire("k", rate, cost=5)).allowed
        await self.pause(2)
        assert (await limiter.acquire("k", rate, cost=0)).reset_after == 0
        assert (await limiter.acquire("k", rate, cost=5)).allowed

    async def test_bad_input_is_refused(self, backend: Backend) -> None:
        """``cost`` is "0 or more", burst "1 or more", a key is text of 1 to 1,024 bytes."""
        limiter = backend.limiter("api")
        for bad in ("", "x" * 1025):
            await refusal(limiter.acquire(bad, SLOW), (ValueError,), "key")
        await refusal(limiter.acquire(cast("str", 7), SLOW), (TypeError,), "key")
        for cost in (-1, float("nan")):
            await refusal(limiter.acquire("k", SLOW, cost=cost), (ValueError,), "cost")
        for burst in (0, 0.5, float("nan")):
            await refusal(limiter.acquire("k", SLOW, burst=burst), (ValueError,), "burst")
        await refusal(limiter.acquire("k", cast("Rate", 5)), (TypeError,), "rate")
        assert await _looks(backend) == 5


async def _looks(backend: Backend) -> int:
    """How many there are, by a look that takes none."""
    return (await backend.limiter("api").acquire("k", SLOW, cost=0)).remaining
