"""What is owed: told at least once, bounded, and never read in between."""

from __future__ import annotations

from typing import Any, cast

import pytest
from anyio import create_task_group
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.cache.farnames import FarNames
from aiopatterns.cache.gate import Gate
from aiopatterns.cache.invalidation import ALL, KEYS, MATCHING, TAGS, Item, News
from aiopatterns.cache.owed import MOST_OWED, Outbox, Owed
from aiopatterns.cache.pieces import Pieces
from aiopatterns.core.clock import sleep
from aiopatterns.testing import Trial, cancel_everywhere, simulate
from tests.cache.shaky import Deaf, Shaky

PATTERN = Item(MATCHING, "[ab]*")
ITEMS = [*(Item(KEYS, key) for key in "abc"), Item(TAGS, "t"), Item(ALL)]


class OwedMachine(RuleBasedStateMachine):
    """Owed against a model that keeps every telling apart."""

    def __init__(self) -> None:
        super().__init__()
        self.owed = Owed()
        self.tellings: dict[int, list[Item]] = {}
        self.newest: dict[Item, int] = {}
        self.due: set[Item] = set()

    @rule(items=st.lists(st.sampled_from([*ITEMS, PATTERN]), unique=True))
    def tell(self, items):
        self.began(items, self.owed.add(items))

    @rule(limit=st.integers(1, 3))
    def tell_again(self, limit):
        items, ticket = self.owed.again(limit)
        assert len(items) == min(limit, len(self.due))
        assert set(items) <= self.due
        self.began(items, ticket)

    @rule(told=st.booleans(), data=st.data())
    def end(self, told, data):
        if not self.tellings:
            return
        ticket = data.draw(st.sampled_from(sorted(self.tellings)))
        items = self.tellings.pop(ticket)
        self.owed.settle(items, ticket, told=told)
        for item in items:
            if self.newest.get(item) == ticket:
                if told:
                    del self.newest[item]
                else:
                    self.due.add(item)

    def began(self, items, ticket):
        self.tellings[ticket] = items
        self.newest.update(dict.fromkeys(items, ticket))
        self.due.difference_update(items)

    @invariant()
    def the_same_is_owed(self):
        assert len(self.owed) == len(self.newest)
        assert self.owed.due == len(self.due)
        whole = Item(ALL) in self.newest
        for key in "abcd":
            owed = whole or Item(KEYS, key) in self.newest
            owed = owed or (key in "ab" and PATTERN in self.newest)
            assert self.owed.concerns(key, ()) == owed
            assert self.owed.concerns(key, ("t",)) == (owed or Item(TAGS, "t") in self.newest)


TestOwed = OwedMachine.TestCase
TestOwed.settings = settings(max_examples=40, stateful_step_count=30)


def test_too_much_becomes_everything():
    owed = Owed()
    first = owed.add([Item(KEYS, "first"), PATTERN])
    ticket = owed.add([Item(KEYS, number) for number in range(MOST_OWED)])
    assert len(owed) == owed.due == 1
    assert owed.concerns("anything", ())
    owed.settle([Item(KEYS, "first")], first, told=True)
    owed.settle([Item(KEYS, 1)], ticket, told=False)
    assert owed.again(9) == ([Item(ALL)], ticket + 1)


class Home:
    """An outbox, and another process that listens."""

    def __init__(self, **network):
        self.backend = cast("Any", Shaky(MemoryBackend(), **network))
        self.gate = Gate("n")
        self.other = Deaf()
        self.news: News[str] = News(Deaf())
        self.pieces = Pieces(self.backend, self.gate)
        self.outbox = Outbox(self.pieces, self.news, FarNames("n"))

    async def listen(self, *, task_status):
        news = News(self.other)
        self.news.begin()
        async with (
            self.backend.server as server,
            server.pubsub.subscribe("cache:n", capacity=10_000) as notices,
        ):
            task_status.started()
            async for notice in notices:
                news.hear(notice.data)


async def test_all_is_told_and_written():
    home = Home()
    async with create_task_group() as tasks:
        await tasks.start(home.listen)
        home.gate.back()
        assert await home.outbox.tell(ITEMS)
        await sleep(0.01)
        assert home.other.told == [["a"], ["b"], ["c"], {"t"}, "all"]
        assert not home.outbox.owed
        names = ["cache:n:k:sa", "cache:n:v:t", "cache:n:v:"]
        assert list(await home.backend.server.kv.get_many(names)) == names
        tasks.cancel_scope.cancel()


async def test_what_cannot_be_told_is_told_again():
    home = Home()
    async with create_task_group() as tasks:
        await tasks.start(home.listen)
        assert not await home.outbox.tell([Item(KEYS, number) for number in range(1_200)])
        await home.outbox.tell_again()
        assert home.outbox.owed.due == 1_200
        home.gate.back()
        await home.outbox.tell_again()
        await sleep(0.01)
        assert sorted(home.other.told, key=str) == [
            [number] for number in sorted(range(1_200), key=lambda each: f"[{each}]")
        ]
        assert home.backend.calls == ["change_many"] * 3
        assert not home.outbox.owed
        tasks.cancel_scope.cancel()


async def test_a_refusal_is_tried_again_later():
    home = Home()
    async with home.backend.server:
        home.gate.back()
        home.backend.refuses = True
        assert not await home.outbox.tell(ITEMS)
        await home.outbox.tell_again()
        assert home.outbox.owed.due == len(ITEMS)


def test_many_patterns_are_everything():
    """Each question asks all of them, and to tell one again is to tell that all is invalid."""
    owed = Owed()
    tickets = [(item, owed.add([item])) for item in (Item(MATCHING, f"{n}*") for n in range(100))]
    assert not owed.concerns("x", ())
    last = Item(MATCHING, "100*")
    ticket = owed.add([last])
    assert owed.concerns("x", ())
    assert len(owed) == owed.due == 1
    for item, each in (*tickets, (last, ticket)):
        owed.settle([item], each, told=True)
    assert owed.again(10)[0] == [Item(ALL)]


async def test_bad_keys_are_refused_before_they_are_owed():
    home = Home()
    wrong: Any = 1.5
    with pytest.raises(TypeError, match="str, bytes or int"):
        await home.outbox.tell([Item(KEYS, wrong)])
    assert not home.outbox.owed


def test_a_cancelled_telling_is_owed():
    def scenario() -> Trial:
        home = Home(delay=0.1)
        home.gate.back()
        done = []

        async def work():
            async with home.backend.server:
                await home.outbox.tell(ITEMS)
                done.append(True)

        def check():
            assert home.outbox.owed.due == (0 if done else len(home.outbox.owed))

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=2)


def test_the_network_decides_nothing():
    """However calls end, in the end all is told."""

    async def scenario():
        home = Home(delay=0.01, faults=0.3)
        async with home.backend.server:
            for item in ITEMS:
                home.gate.back()
                await home.outbox.tell([item])
            home.backend.faults = 0.0
            home.gate.back()
            await home.outbox.tell_again()
            assert not home.outbox.owed

    for seed in range(50):
        simulate(scenario, seed=seed)
