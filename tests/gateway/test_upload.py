from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.gateway.upload import Upload
from aiopatterns.testing import Trial, cancel_everywhere


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await sleep(0)
        yield part


@pytest.mark.parametrize("length", [None, 5])
async def test_chunks_pass_without_the_empty_ones(length: int | None):
    moves: list[None] = []
    upload = Upload(chunks(b"", b"he", b"", b"llo", b""), length, moved=lambda: moves.append(None))
    assert [chunk async for chunk in upload] == [b"he", b"llo"]
    assert len(moves) == 3  # each chunk, and the end
    assert upload.failure is None


@pytest.mark.parametrize("length", [None, 0])
async def test_a_body_may_be_empty(length: int | None):
    assert [chunk async for chunk in Upload(chunks(), length)] == []


@pytest.mark.parametrize(
    ("parts", "passed"), [((b"four",), [b"four"]), ((b"123456", b"7890"), [b"123456"]), ((), [])]
)
async def test_a_body_of_another_length_ends_by_an_error(
    parts: tuple[bytes, ...], passed: list[bytes]
):
    upload = Upload(chunks(*parts), 9)
    told: list[Exception] = []
    upload.broke = told.append
    for chunk in passed:
        assert await anext(upload) == chunk
    with pytest.raises(RequestRefusedError) as caught:
        await anext(upload)
    assert caught.value.status == 400
    assert told == [caught.value]
    assert upload.failure is caught.value


async def test_an_error_of_the_chunks_stays_what_it_is():
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise LookupError("the client has gone")

    upload = Upload(broken(), None)
    assert await anext(upload) == b"half"
    with pytest.raises(LookupError) as caught:
        await anext(upload)
    assert upload.failure is caught.value


def test_cancelled_anywhere_nothing_is_blamed_on_the_client():
    def scenario() -> Trial:
        upload = Upload(chunks(b"he", b"llo"), 5)

        async def work() -> None:
            async for _ in upload:
                await sleep(0)

        def check() -> None:
            assert upload.failure is None

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=4)
