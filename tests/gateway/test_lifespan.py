"""The lifespan protocol, with an owner that notes what happens to it."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.lifecycle import Owner
from aiopatterns.gateway.lifespan import live


class Noting(Owner):
    def __init__(self, fails: str = "") -> None:
        super().__init__("noting")
        self.fails = fails
        self.log: list[str] = []

    def statistics(self) -> list[str]:
        return self.log

    async def _start(self, tasks: Any) -> None:
        self.note("startup")

    async def _drain(self) -> None:
        self.note("shutdown")

    def note(self, phase: str) -> None:
        if phase == self.fails:
            raise OSError(phase)
        self.log.append(phase)


async def lived(owner: Noting) -> list[dict[str, str]]:
    """Let a server start and end; returns what it was told, beside what happened to the owner."""
    told: list[Any] = []

    async def receive() -> dict[str, str]:
        owner.log.append("asked")
        return {}

    async def send(message: Any) -> None:
        owner.log.append(message["type"])
        told.append(message)

    try:
        await live(owner, receive, send)
    except OSError:
        owner.log.append("raised")
    return told


COMPLETE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_server_is_told_only_when_it_is_so():
    owner = Noting()
    for _ in range(2):
        owner.log.clear()
        await lived(owner)
        assert owner.log == ["asked", "startup", COMPLETE[0], "asked", "shutdown", COMPLETE[1]]
        assert not owner.is_open


async def test_one_that_is_open_stays_so():
    async with Noting() as owner:
        await lived(owner)
        assert owner.log == ["startup", "asked", COMPLETE[0], "asked", COMPLETE[1]]
        assert owner.is_open


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_an_error_is_told_in_its_phase_and_goes_on(phase):
    owner = Noting(phase)
    told = await lived(owner)
    assert told[-1] == {"type": f"lifespan.{phase}.failed", "message": phase}
    assert owner.log[-1] == "raised"
    assert not owner.is_open
