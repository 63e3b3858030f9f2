"""Conformance of :class:`~aiopatterns.backends.protocols.Lease`: one holder, growing tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from anyio import create_task_group

from aiopatterns.testing.conformance_base import Conformance, refusal, timely

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend, Held, Lease

__all__ = ["LeaseConformance"]


class LeaseConformance(Conformance):
    """Tests of leases; see :class:`Conformance` for what a subclass brings."""

    async def test_one_holder_at_a_time(self, backend: Backend) -> None:
        """``try_acquire``: "Take the lease ... if nobody holds it; never waits."."""
        held = await _take(backend.lease("leader"))
        assert await backend.lease("leader").try_acquire(ttl=600) is None
        assert await backend.lease("other").try_acquire(ttl=600) is not None
        assert await held.release()
        assert await backend.lease("leader").try_acquire(ttl=600) is not None

    async def test_of_many_at_once_one_wins(self, backend: Backend) -> None:
        """``try_acquire`` is an atomic step."""
        held: list[Held | None] = []

        async def contend() -> None:
            held.append(await backend.lease("leader").try_acquire(ttl=600))

        async with create_task_group() as group:
            for _ in range(50):
                group.start_soon(contend)
        assert len([each for each in held if each is not None]) == 1

    async def test_tokens_grow(self, backend: Backend) -> None:
        """``token``: "above that of every earlier holder of this name, for ever"."""
        tokens: list[int] = []
        for _ in range(20):
            held = await _take(backend.lease("leader"))
            tokens.append(held.token)
            await held.release()
        assert tokens == sorted(set(tokens))
        assert tokens[0] > 0

    async def test_tokens_grow_over_an_expiry(self, backend: Backend) -> None:
        """Tokens grow also if the holder before never gave the lease back."""
        tokens: list[int] = []
        for _ in range(3):
            tokens.append((await _take(backend.lease("leader"), self.life(0.5))).token)
            await self.pause(1)
        assert tokens == sorted(set(tokens))

    async def test_it_ends_by_time(self, backend: Backend) -> None:
        """A lease "ends by time", and is lost then even if nobody else has taken it."""
        held = await _take(backend.lease("leader"), self.life(1))
        await self.pause(2)
        assert not await held.renew(ttl=600)
        assert not await held.release()
        assert await backend.lease("leader").try_acquire(ttl=600) is not None

    @timely
    async def test_it_is_held_until_then(self, backend: Backend) -> None:
        """``try_acquire``: "for ``ttl`` seconds"."""
        lease = backend.lease(self.name("leader"))
        await _take(lease, self.life(3))
        await self.pause(1)
        assert await lease.try_acquire(ttl=600) is None
        await self.pause(3)
        assert await lease.try_acquire(ttl=600) is not None

    @timely
    async def test_renewing_holds_on(self, backend: Backend) -> None:
        """``renew``: "Hold on for ``ttl`` (by default as before) from now"."""
        lease = backend.lease(self.name("leader"))
        held = await _take(lease, self.life(3))
        for _ in range(4):
            await self.pause(1.5)
            assert await held.renew()
        assert await lease.try_acquire(ttl=600) is None
        await self.pause(4)
        assert await lease.try_acquire(ttl=600) is not None
        assert not await held.renew()

    @timely
    async def test_renewing_for_another_time(self, backend: Backend) -> None:
        """``renew``: a ``ttl`` counts from now, be it longer or shorter."""
        longer, shorter = backend.lease(self.name("a")), backend.lease(self.name("b"))
        assert await (await _take(longer, self.life(2))).renew(ttl=600)
        assert await (await _take(shorter, 600)).renew(ttl=self.life(1))
        await self.pause(3)
        assert await longer.try_acquire(ttl=600) is None
        assert await shorter.try_acquire(ttl=600) is not None

    async def test_renewing_keeps_the_token(self, backend: Backend) -> None:
        """``token`` is that of the holder, not of the renewal."""
        held = await _take(backend.lease("leader"))
        token = held.token
        assert await held.renew()
        assert held.token == token

    async def test_a_lost_lease_does_not_touch_the_next_holder(self, backend: Backend) -> None:
        """``renew`` and release answer False if the lease "was lost", and do nothing."""
        lost = await _take(backend.lease("leader"), self.life(1))
        await self.pause(2)
        held = await _take(backend.lease("leader"))
        assert not await lost.renew(ttl=self.life(0.1))
        assert not await lost.release()
        await self.pause(1)
        assert await backend.lease("leader").try_acquire(ttl=600) is None
        assert await held.renew()

    async def test_a_second_release_is_harmless(self, backend: Backend) -> None:
        """``release``: "Repeated safely."."""
        first = await _take(backend.lease("leader"))
        assert await first.release()
        await first.release()
        second = await _take(backend.lease("leader"))
        assert not await first.release()
        assert not await first.renew()
        assert await second.renew()

    async def test_bad_input_is_refused(self, backend: Backend) -> None:
        """Life "is in seconds, above 0"."""
        lease = backend.lease("leader")
        for bad in (0, -1, float("nan")):
            await refusal(lease.try_acquire(ttl=bad), (ValueError,), "ttl")
        await refusal(lease.try_acquire(ttl=cast("float", "1")), (TypeError,), "ttl")
        held = await _take(lease)
        await refusal(held.renew(ttl=0), (ValueError,), "ttl")
        assert await held.renew()


async def _take(lease: Lease, ttl: float = 600.0) -> Held:
    held = await lease.try_acquire(ttl=ttl)
    assert held is not None, "the lease is free, but was not given out"
    return held
