"""The sweep in its short form, and that it finds mistakes, names them and plays them again."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.backends.memory.directory import MemoryDirectory
from aiopatterns.backends.memory.group import Group
from aiopatterns.backends.memory.lease import MemoryHeld
from aiopatterns.backends.memory.queue import MemoryQueue
from aiopatterns.cache.forgetting import Forgetting
from aiopatterns.core.clock import rng
from aiopatterns.data import MemoryParticipant
from aiopatterns.flow import Channel
from aiopatterns.resilience.bulkhead import _Permits
from tests.sweep.rooms import ROOMS
from tests.sweep.sweeping import main, sweep

pytestmark = pytest.mark.untraced

SEEDS = {"backends": 25, "resilience": 25, "flow": 25}  # of the quick ones
OTHERS = 5
# A mistake is found within so many seeds; most are by the first few.
ENOUGH = 100


@pytest.mark.promise("fault-11-seeds")
@pytest.mark.parametrize("room", ROOMS)
def test_a_room_under_a_few_seeds(room):
    seeds = SEEDS.get(room, OTHERS)
    found = sweep(room, range(1, seeds + 1))
    assert found.failures == [], "\n".join(map(str, found.failures))
    assert found.seeds == len(found.traces) == seeds


def nothing(*_args: Any, **_options: Any) -> None:
    """What was to be done is forgotten."""


def now_and_then(method: Any, instead: Any) -> Any:
    """``instead`` in place of one call in seven, by the dice of the run."""

    def call(*args: Any, **options: Any) -> Any:
        return (method if rng().random() * 7 > 1 else instead)(*args, **options)

    return call


async def renewed(*_args: Any, **_options: Any) -> bool:
    return True


async def unsettled(queue: MemoryQueue, turn: Any) -> Any:
    return await STEP(queue, turn._replace(settled=()))


async def deaf(queue: MemoryQueue, turn: Any) -> Any:
    return (await STEP(queue, turn))._replace(cancels=[])


async def rolled_back(place: MemoryParticipant, gid: str) -> bool:
    return await place.rollback(gid)


async def immortal(
    directory: MemoryDirectory, member: str, data: bytes, *, ttl: float, **more: Any
) -> bool:
    return await PUT(directory, member, data, ttl=10 * ttl, **more)


STEP: Any = MemoryQueue.step
PUT: Any = MemoryDirectory.put
MISTAKES: dict[str, tuple[str, type, str, Any]] = {
    # By what goes wrong: in which room, where the mistake is, and what is done there instead.
    "a lease that is lost is renewed": ("backends", MemoryHeld, "renew", renewed),
    "a permit leaks": (
        "resilience",
        _Permits,
        "give_back",
        now_and_then(_Permits.give_back, nothing),
    ),
    "who waits for a permit is not woken": ("resilience", _Permits, "hand_on", nothing),
    "a receiver that gives up keeps items": ("flow", Channel, "_put_back", nothing),
    "an invalidation is not told": ("cache", Forgetting, "forget", nothing),
    "an ack is lost": ("jobs", MemoryQueue, "step", now_and_then(STEP, unsettled)),
    "nobody hears of a cancel": ("jobs", MemoryQueue, "step", deaf),
    "an entry that failed does not come back": ("messaging", Group, "_park", nothing),
    "entries of the dead are left": ("messaging", Group, "_abandoned", lambda *_: []),
    "a dead instance stays": ("cluster", MemoryDirectory, "put", immortal),
    "what is decided is not done": (
        "data",
        MemoryParticipant,
        "commit",
        now_and_then(MemoryParticipant.commit, rolled_back),
    ),
}


def test_each_room_has_a_mistake_that_must_be_found():
    assert {room for room, *_ in MISTAKES.values()} == ROOMS.keys()


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_found_and_fails_alike_when_it_is_played_again(mistake, monkeypatch):
    room, *where = mistake
    monkeypatch.setattr(*where)
    found = (sweep(room, [seed]) for seed in range(1, ENOUGH))
    failure = next(each.failures[0] for each in found if each.failures)
    assert failure.replays
    assert "Error" in failure.outcome.error


def test_a_failure_is_printed_with_the_command_that_plays_it_again(monkeypatch, capsys):
    monkeypatch.setattr(Channel, "_put_back", nothing)
    here = lambda work, _: (sweep(*each) for each in work)
    monkeypatch.setattr("tests.sweep.sweeping.everywhere", here)
    assert main(["--room", "flow", "--seeds", "3"]) == 1
    told = capsys.readouterr().out
    assert "flow, seed 2: trace " in told
    assert "fails alike when it is played again" in told
    assert "    python -m tests.sweep --room flow --first 2 --seeds 1\n" in told
    assert main(["--room", "flow", "--seeds", "1"]) == 0
    assert "1 seeds in 0 s: 0 failed" in capsys.readouterr().out
