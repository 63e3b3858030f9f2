"""What type checkers must know about core; checked, never run."""

from __future__ import annotations

from typing import Any, assert_type

from aiopatterns.core import Err, Ok, Outcome, bind_correlation, deadline, install_listener
from aiopatterns.core.codec import JSON, Header, unpack
from aiopatterns.core.context import run_in
from aiopatterns.core.flight import Flights
from aiopatterns.core.hashing import HashRing
from aiopatterns.core.quantile import Histogram
from aiopatterns.core.telemetry import Event, Subscription
from aiopatterns.core.types import as_async_iterator


def outcomes(outcome: Outcome[int]) -> None:
    assert_type(outcome.unwrap(), int)
    match outcome:
        case Ok(value):
            assert_type(value, int)
        case Err(error):
            assert_type(error, Exception)
    if isinstance(outcome, Ok):
        assert_type(outcome.value, int)


async def shared(flights: Flights[str, int]) -> None:
    async def load() -> int:
        return 1

    assert_type(await flights.run("key", load), int)


async def contexts(numbers: list[int]) -> None:
    from contextvars import copy_context

    async def work() -> str:
        return "done"

    assert_type(await run_in(copy_context(), work()), str)
    with bind_correlation() as request_id:
        assert_type(request_id, str)
    assert_type(deadline(), float | None)
    async for number in as_async_iterator("numbers", numbers):
        assert_type(number, int)


def values(data: bytes) -> None:
    assert_type(JSON.decode(data), Any)
    assert_type(JSON.decode(data, dict[str, int]), dict[str, int])
    assert_type(JSON.decoder(Header)(data), Header)
    assert_type(unpack(data), tuple[Header, bytes])
    assert_type(Histogram().quantile(0.5), float | None)
    assert_type(HashRing(["a"]).owner(1), str)


def listeners() -> None:
    def take(event: Event) -> None: ...

    assert_type(install_listener(take), Subscription)
