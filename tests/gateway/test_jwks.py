"""Key sets: rotation, unknown names, floods of them, issuers that are away."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from joserfc.jwk import RSAKey

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.gateway.jwks import (
    ABSENT_FOR,
    KEPT_FOR,
    MOST_WAITING,
    REFRESH_EVERY,
    GatewayKeysLost,
    GatewayKeysRecovered,
    GatewayKeysRotated,
    Jwks,
    KeyDirectory,
)
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, explore, simulate

NUMBERS = RSAKey.generate_key(2048, private=True).as_dict(private=False)


class Issuer:
    """Publishes keys, that differ by their names only."""

    def __init__(self, *kids: str, delay: float = 0.01) -> None:
        self.kids = list(kids)
        self.delay = delay
        self.away: Exception | None = None
        self.fetches: list[float] = []

    async def __call__(self, url: str = "") -> Any:
        self.fetches.append(monotonic())
        published = [{**NUMBERS, "kid": kid} for kid in self.kids]
        await sleep(self.delay)
        if self.away is not None:
            raise self.away
        return {"keys": published}


async def finds(jwks: Jwks, kid: str | None) -> bool:
    return bool(await jwks.find(kid, "RS256"))


def test_keys_are_fetched_when_they_are_needed_once_for_all():
    async def main() -> None:
        issuer = Issuer("a", "b")
        jwks = Jwks(issuer, name="me")

        async def one(n: int) -> None:
            assert await finds(jwks, "ab"[n % 2])

        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(one, n)
        assert len(issuer.fetches) == 1
        assert await finds(jwks, None)
        assert not await jwks.find("a", "ES256")
        assert len(issuer.fetches) == 2, "a key of another kind might have been added"
        assert not await jwks.find("a", "ES256")
        assert len(issuer.fetches) == 2

    simulate(main)


@pytest.mark.promise("gateway-jwks-rotation")
def test_no_key_that_was_published_is_unknown():
    async def main() -> None:
        issuer = Issuer("k0")
        jwks = Jwks(issuer, name="me")

        async def rotate() -> None:
            for n in range(1, 8):
                await sleep(0.7)
                issuer.kids = [*issuer.kids, f"k{n}"][-2:]

        async def client() -> None:
            for _ in range(100):
                kid = issuer.kids[-1]
                assert await finds(jwks, kid) or kid not in issuer.kids
                await sleep(0.05)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(jwks.tend)
            tasks.start_soon(rotate)
            async with anyio.create_task_group() as clients:
                for _ in range(20):
                    clients.start_soon(client)
            tasks.cancel_scope.cancel()
        assert len(issuer.fetches) <= 9

    explore(main, range(10))


@pytest.mark.promise("gateway-jwks-rotation")
def test_a_fetch_that_was_begun_before_the_key_was_there_does_not_decide():
    async def main() -> None:
        issuer = Issuer("old", delay=1.0)
        jwks = Jwks(issuer, name="me")
        results: list[bool] = []

        async def one(kid: str) -> None:
            results.append(await finds(jwks, kid))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, "old")
            await sleep(0.5)
            issuer.kids.append("new")
            tasks.start_soon(one, "new")
        assert results == [True, True]
        assert len(issuer.fetches) == 2

    simulate(main)


@pytest.mark.promise("gateway-jwks-flood")
def test_names_of_strangers_cause_few_fetches_and_bounded_memory():
    async def main() -> None:
        issuer = Issuer("a")
        jwks = Jwks(issuer, name="me")
        await finds(jwks, "a")
        refused = [0]

        async def stranger(n: int) -> None:
            await sleep(n * 0.01)
            for turn in range(3):
                try:
                    assert not await finds(jwks, f"x{n}-{turn}")
                except RequestRefusedError:
                    refused[0] += 1

        async def client() -> None:
            for _ in range(100):
                began = monotonic()
                assert await finds(jwks, "a")
                assert monotonic() == began, "who has a known key waits for nobody"
                await sleep(0.1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client)
            for n in range(1500):
                tasks.start_soon(stranger, n)
        took = monotonic()
        assert len(issuer.fetches) <= 6 + took / 10
        assert refused[0], f"at most {MOST_WAITING} wait"
        assert len(jwks._absent) <= 1024

    simulate(main)


def test_a_name_that_is_not_there_is_refused_at_once_for_a_while():
    async def main() -> None:
        issuer = Issuer("a")
        jwks = Jwks(issuer, name="me")
        for _ in range(5):
            assert not await finds(jwks, "b")
        assert len(issuer.fetches) == 1
        issuer.kids.append("b")
        await sleep(ABSENT_FOR)
        assert await finds(jwks, "b")
        assert len(issuer.fetches) == 2

    simulate(main)


def test_the_set_is_fetched_anew_and_removed_keys_are_gone():
    async def main() -> None:
        issuer = Issuer("a", "b")
        with capture_events() as events:
            async with anyio.create_task_group() as tasks:
                directory = KeyDirectory(issuer)
                jwks = directory.of("https://me.example/keys?token=s3cret")
                directory.open(tasks)
                await sleep(1)
                issuer.kids = ["b", "c"]
                assert await finds(jwks, "a")
                await sleep(REFRESH_EVERY * 1.2)
                assert not await finds(jwks, "a")
                assert await finds(jwks, "c")
                directory.close()
                tasks.cancel_scope.cancel()
        (rotated,) = events
        assert rotated == GatewayKeysRotated("https://me.example/keys", ("c",), ("a",))

    simulate(main)


def test_on_its_own_the_one_who_finds_it_old_fetches_it():
    async def main() -> None:
        issuer = Issuer("a")
        jwks = Jwks(issuer, name="me")
        assert await finds(jwks, "a")
        await sleep(REFRESH_EVERY * 1.2)
        issuer.kids = ["b"]
        assert not await finds(jwks, "a")
        assert len(issuer.fetches) == 2
        issuer.away = OSError("down")
        await sleep(REFRESH_EVERY * 1.2)
        for _ in range(3):
            assert await finds(jwks, "b"), "what is known holds"
        assert len(issuer.fetches) == 3

    simulate(main)


@pytest.mark.promise("gateway-jwks-down")
@pytest.mark.parametrize("trouble", ["error", "hangs", "nonsense", "empty"])
def test_an_issuer_that_is_away(trouble):
    async def main() -> None:
        issuer = Issuer("a")
        document: Any = {"nonsense": b"<html>", "empty": {"keys": []}}.get(trouble)
        down = [False]

        async def fetch(url: str) -> Any:
            if not down[0]:
                return await issuer(url)
            issuer.fetches.append(monotonic())
            if trouble == "error":
                raise OSError("down")
            if trouble == "hangs":
                await sleep(3600)
            return document

        with capture_events() as events:
            async with anyio.create_task_group() as tasks:
                directory = KeyDirectory(fetch)
                directory.open(tasks)
                jwks = directory.of("https://me.example/keys")
                await sleep(1)
                down[0] = True
                await sleep(REFRESH_EVERY * 1.5)
                for _ in range(100):
                    began = monotonic()
                    assert await finds(jwks, "a")
                    assert monotonic() == began
                    await sleep(1)
                with pytest.raises(RequestRefusedError) as caught:
                    await finds(jwks, "unknown")
                assert caught.value.status == 503
                assert 1 <= int(dict(caught.value.headers)[b"retry-after"]) <= 30
                assert len(issuer.fetches) < 30
                down[0] = False
                await sleep(60)
                assert not await finds(jwks, "unknown")
                tasks.cancel_scope.cancel()
        assert [type(each) for each in events] == [GatewayKeysLost, GatewayKeysRecovered]

    simulate(main)


@pytest.mark.promise("gateway-jwks-down")
def test_keys_do_not_hold_for_ever_and_nobody_passes_without_them():
    async def main() -> None:
        issuer = Issuer("a")
        jwks = Jwks(issuer, name="me")
        issuer.away = OSError("down")
        with pytest.raises(RequestRefusedError) as caught:
            await finds(jwks, "a")
        assert caught.value.status == 503
        issuer.away = None
        await sleep(5)
        assert await finds(jwks, "a")
        issuer.away = OSError("down")
        await sleep(KEPT_FOR + 1)
        with pytest.raises(RequestRefusedError):
            await finds(jwks, "a")
        issuer.away = None
        await sleep(60)
        assert await finds(jwks, "a")

    simulate(main)


def test_a_directory_gives_the_same_set_for_the_same_address():
    directory = KeyDirectory(Issuer("a"))
    assert directory.of("https://a/keys") is directory.of("https://a/keys")
    assert directory.of("https://a/keys") is not directory.of("https://b/keys")


@pytest.mark.promise("gateway-auth-cancel")
def test_cancelled_anywhere_it_leaves_nothing():
    def scenario() -> Trial:
        issuer = Issuer("a")
        jwks = Jwks(issuer, name="me")

        async def work() -> None:
            assert await finds(jwks, "a")
            assert not await finds(jwks, "b")

        async def check() -> None:
            assert await finds(jwks, "a")

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=2)
