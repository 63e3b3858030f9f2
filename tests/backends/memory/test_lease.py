from __future__ import annotations

import anyio
import pytest

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.core.clock import rng, sleep
from aiopatterns.core.errors import ClosedError
from aiopatterns.testing import explore, simulate


def test_one_holds_it_until_its_time_is_over():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            lease = backend.lease("a")
            held = await lease.try_acquire(ttl=5)
            assert held is not None
            await sleep(4.999)
            assert await backend.lease("a").try_acquire(ttl=5) is None
            await sleep(0.001)
            other = await lease.try_acquire(ttl=5)
            assert other is not None
            assert other.token > held.token
            assert not await held.renew()
            assert not await held.release()
            assert await other.renew()

    simulate(scenario)


def test_renewing_goes_on_as_before_or_as_told():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            held = await backend.lease("a").try_acquire(ttl=5)
            assert held is not None
            await sleep(4)
            assert await held.renew()
            await sleep(4)
            assert await held.renew(ttl=10)
            await sleep(9)
            assert await held.renew()  # ten seconds from now on
            await sleep(9.9)
            assert await held.renew(ttl=1)
            await sleep(1)
            assert not await held.renew()

    simulate(scenario)


async def test_a_released_lease_is_free_and_names_are_strangers():
    async with MemoryBackend() as backend:
        one = await backend.lease("a").try_acquire(ttl=5)
        other = await backend.lease("b").try_acquire(ttl=5)
        assert one is not None
        assert other is not None
        assert await one.release()
        assert not await one.release()
        assert not await one.renew()
        again = await backend.lease("a").try_acquire(ttl=5)
        assert again is not None
        assert again.token > one.token
        assert await other.release()


async def test_tokens_grow_also_within_one_microsecond():
    async with MemoryBackend() as backend:
        tokens = []
        for _ in range(100):
            held = await backend.lease("a").try_acquire(ttl=5)
            assert held is not None
            tokens.append(held.token)
            await held.release()
        assert tokens == sorted(set(tokens))
        assert tokens[0] == pytest.approx(await backend.time() * 1e6, abs=1e6)


@pytest.mark.promise("backends-one-holder")
def test_one_holder_at_a_time_under_any_schedule():
    async def scenario() -> None:
        seen: list[int] = []

        async def work(lease) -> None:
            for _ in range(5):
                held = await lease.try_acquire(ttl=1)
                if held is not None:
                    assert held.token > max(seen, default=0)
                    seen.append(held.token)
                    await sleep(rng().choice([0.1, 0.9, 1.1]))
                    # Whoever is told that it still holds is the newest holder.
                    if await held.renew():
                        assert held.token == max(seen)
                    if rng().random() < 0.5:
                        await held.release()
                await sleep(rng().random())

        async with MemoryBackend() as backend, anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(work, backend.lease("a"))
        assert seen

    explore(scenario, range(200))


def test_names_that_nobody_holds_keep_no_memory():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            for number in range(10_000):
                held = await backend.lease(f"name {number}").try_acquire(ttl=0.5)
                assert held is not None
                if number % 2:
                    await held.release()
                await sleep(0.01)
            assert len(backend._leases.holders) < 200

    simulate(scenario)


async def test_bad_input_is_refused():
    async with MemoryBackend() as backend:
        with pytest.raises(ValueError, match="name must be a non-empty string"):
            backend.lease("")
        with pytest.raises(ValueError, match="ttl must be a finite number > 0"):
            await backend.lease("a").try_acquire(ttl=0)
        held = await backend.lease("a").try_acquire(ttl=5)
        assert held is not None
        with pytest.raises(ValueError, match="ttl must be a finite number > 0"):
            await held.renew(ttl=-1)


async def test_a_closed_backend_is_told_so():
    backend = MemoryBackend()
    async with backend:
        held = await backend.lease("a").try_acquire(ttl=5)
    assert held is not None
    for call in (backend.lease("a").try_acquire(ttl=5), held.renew(), held.release()):
        with pytest.raises(ClosedError):
            await call
    async with backend:
        assert await held.renew()  # the state outlives the opening
