"""Memory and Redis side by side: the same operations, the same answers.

Each example runs one list of operations on a fresh name in both backends and compares every
answer, ids and tokens by their order. Lives and delays are either over at once or never, so the
two kinds of time do not matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiopatterns.backends import open_backend
from aiopatterns.backends.records import ANYTHING, DELETE, Change, Claimed, GroupTurn, GroupTurned
from aiopatterns.core.rate import Rate

pytestmark = [pytest.mark.real, pytest.mark.leaves("ap:kv:*", "{ap:log:*")]

EXAMPLES = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FOREVER = 1_000.0


class Both:
    """A memory and a Redis backend that stay open on one loop."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.backends = [open_backend("memory://"), open_backend(url)]
        self.names = (f"name {number}" for number in count())
        for backend in self.backends:
            self.runner.run(self.stack.enter_async_context(backend))

    def compare(self, play, steps) -> None:
        """Play ``steps`` on a fresh name in both and compare what they tell."""
        name = next(self.names)
        told = [self.runner.run(play(backend, name, steps)) for backend in self.backends]
        assert told[0] == told[1]

    def close(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()


@pytest.fixture
def both(redis_url: str) -> Iterator[Both]:
    pair = Both(redis_url)
    yield pair
    pair.close()


async def answer(call):
    """The answer, or the type of the refusal."""
    try:
        return await call
    except ValueError as error:
        return type(error)


# ------------------------------------------------------------------------------------------- kv

KEYS = st.sampled_from(["a", "b", "é"])
VALUES = st.sampled_from(
    [b"", b"x", b"0", b"7", b"-3", b"007", b"+1", b"-0", b" 1", b"9223372036854775807", b"1e3"]
)
TTLS = st.sampled_from([None, FOREVER])
KV_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("get_many"), st.lists(KEYS, max_size=4)),
        st.tuples(st.just("set"), KEYS, VALUES, TTLS),
        st.tuples(st.just("set_many"), st.dictionaries(KEYS, VALUES), TTLS),
        st.tuples(st.just("delete"), st.lists(KEYS, max_size=4)),
        st.tuples(st.just("scan"), st.sampled_from(["", "a", "*", "[a-z]"]), st.integers(1, 9)),
        st.tuples(st.just("incr"), KEYS, st.sampled_from([1, 0, -5, 2**63 - 1, -(2**63)]), TTLS),
        st.tuples(
            st.just("cas"),
            KEYS,
            st.one_of(st.none(), VALUES),
            st.one_of(st.just(DELETE), VALUES),
            TTLS,
        ),
        st.tuples(
            st.just("change_many"),
            st.lists(
                st.tuples(
                    KEYS,
                    st.one_of(st.just(DELETE), VALUES),
                    st.one_of(st.none(), st.just(ANYTHING), VALUES),
                    TTLS,
                    st.sampled_from([None, 0.0, 1_000.0, 1e11]),
                ),
                max_size=4,
            ),
        ),
    ),
    max_size=25,
)


async def scanned(kv, prefix, limit):
    """All keys with a prefix, without the name."""
    keys, cursor = await kv.scan(prefix, limit=limit)
    found = {key[-1] for key in keys}
    while cursor is not None:
        keys, cursor = await kv.scan(prefix, cursor=cursor, limit=limit)
        found.update(key[-1] for key in keys)
    return found


async def play_kv(backend, name, steps):
    kv, told = backend.kv, []
    full = "{}/{}".format
    for verb, *args in steps:
        match verb, *args:
            case "get", key:
                told.append(await kv.get(full(name, key)))
            case "get_many", keys:
                found = await kv.get_many([full(name, key) for key in keys])
                told.append([(key[-1], value) for key, value in found.items()])
            case "set", key, value, ttl:
                await kv.set(full(name, key), value, ttl=ttl)
            case "set_many", values, ttl:
                await kv.set_many({full(name, key): each for key, each in values.items()}, ttl=ttl)
            case "delete", keys:
                told.append(await kv.delete(*(full(name, key) for key in keys)))
            case "scan", prefix, limit:
                told.append(await scanned(kv, full(name, prefix), limit))
            case "incr", key, by, ttl:
                told.append(await answer(kv.incr(full(name, key), by, ttl=ttl)))
            case "cas", key, expected, value, ttl:
                told.append(await kv.compare_and_set(full(name, key), expected, value, ttl=ttl))
            case "change_many", changes:
                told.append(
                    await kv.change_many(
                        [
                            Change(full(name, key), value, expected, ttl, before=before)
                            for key, value, expected, ttl, before in changes
                        ]
                    )
                )
    told.append([await kv.get(full(name, key)) for key in "abé"])
    return told


@pytest.mark.promise("backends-same-answers")
def test_keys_and_values(both):
    @EXAMPLES
    @given(KV_STEPS)
    def same(steps):
        both.compare(play_kv, steps)

    same()


# --------------------------------------------------------------------------------------- pubsub

GLOBS = st.text(alphabet="aé*?\\[]^-", min_size=1, max_size=6)
CHANNELS = st.text(alphabet="aé*?\\[]", min_size=1, max_size=5)


async def play_pubsub(backend, name, steps):
    patterns, channels = steps
    pubsub, told = backend.pubsub, []
    async with pubsub.subscribe(name, patterns=[f"{name}{each}" for each in patterns]) as notices:
        for channel in channels:
            await pubsub.publish(f"{name}{channel}", channel.encode())
        await pubsub.publish(name, b"end")
        while (notice := await anext(notices)).data != b"end":
            told.append(notice.data)
    return told


@pytest.mark.promise("backends-same-answers")
def test_live_messages(both):
    @EXAMPLES
    @given(st.tuples(st.lists(GLOBS, max_size=3), st.lists(CHANNELS, max_size=8)))
    def same(steps):
        both.compare(play_pubsub, steps)

    same()


# ---------------------------------------------------------------------------------------- lease

LEASE_STEPS = st.lists(
    st.one_of(
        st.just(("acquire",)),
        st.tuples(st.sampled_from(["renew", "release"]), st.integers(0, 4)),
    ),
    max_size=25,
)


async def play_lease(backend, name, steps):
    lease, told, helds = backend.lease(name), [], []
    for verb, *which in steps:
        if verb == "acquire":
            held = await lease.try_acquire(ttl=FOREVER)
            told.append(held is not None)
            if held is not None:
                helds.append(held)
        elif helds:
            told.append(await getattr(helds[which[0] % len(helds)], verb)())
    tokens = [held.token for held in helds]
    told.append(tokens == sorted(set(tokens)))
    return told


@pytest.mark.promise("backends-same-answers")
def test_leases(both):
    @EXAMPLES
    @given(LEASE_STEPS)
    def same(steps):
        both.compare(play_lease, steps)

    same()


# -------------------------------------------------------------------------------------- limiter

LIMITER_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from([Rate(3, per=10_000), Rate(0.5, per=20_000), Rate(10, per=100_000)]),
        st.sampled_from([0, 0.5, 1, 1.5, 3, 20]),
        st.sampled_from([None, 1, 2.5, 10]),
    ),
    max_size=25,
)


async def play_limiter(backend, name, steps):
    told = []
    for key, rate, cost, burst in steps:
        grant = await backend.limiter(name).acquire(key, rate, cost=cost, burst=burst)
        # A second of these rates is far below the smallest step of what is told.
        times = [round(each / 100) if each < 1e9 else each for each in (grant[1], grant[3])]
        told.append((grant.allowed, grant.remaining, times))
    return told


@pytest.mark.promise("backends-same-answers")
def test_limiters(both):
    @EXAMPLES
    @given(LIMITER_STEPS)
    def same(steps):
        both.compare(play_limiter, steps)

    same()


# ------------------------------------------------------------------------------------ directory

MEMBERS = st.sampled_from(["a", "b", "c"])
DIRECTORY_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), MEMBERS, st.sampled_from([b"", b"1:x", b"y"]), st.integers(0, 3)),
        st.tuples(st.just("remove"), MEMBERS, st.one_of(st.none(), st.integers(0, 3))),
        st.just(("snapshot",)),
    ),
    max_size=25,
)


async def play_directory(backend, name, steps):
    directory, told, revision = backend.directory(name), [], (await first_look(backend, name))
    for verb, *args in steps:
        match verb, *args:
            case "put", member, data, fence:
                told.append(await directory.put(member, data, ttl=FOREVER, fence=fence))
            case "remove", member, fence:
                told.append(await directory.remove(member, fence=fence))
        seen = await directory.snapshot()
        told.append((seen.revision > revision, seen.revision < revision, seen.members))
        revision = seen.revision
    return told


async def first_look(backend, name):
    seen = await backend.directory(name).snapshot()
    assert seen.members == {}
    return seen.revision


@pytest.mark.promise("backends-same-answers")
def test_directories(both):
    @EXAMPLES
    @given(DIRECTORY_STEPS)
    def same(steps):
        both.compare(play_directory, steps)

    same()


# ------------------------------------------------------------------------------------------ log

GROUPS = st.sampled_from(["g", "h"])
CONSUMERS = st.sampled_from(["c", "d"])
PLACES = st.lists(st.integers(0, 11), max_size=4)
TURNS = st.fixed_dictionaries(
    {
        "acks": PLACES,
        "releases": PLACES,
        "retries": st.dictionaries(st.integers(0, 11), st.sampled_from([0, FOREVER]), max_size=3),
        "buried": st.dictionaries(st.integers(0, 11), st.sampled_from([b"", b"1:w"]), max_size=3),
        "renews": PLACES,
        "limit": st.integers(0, 5),
        "delete": st.booleans(),
    }
)
LOG_STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"),
            st.lists(st.sampled_from([b"", b"x", b"1:2:3"]), max_size=4),
            st.sampled_from([None, "t", "u"]),
        ),
        st.tuples(st.just("read"), st.integers(0, 11), st.integers(1, 5)),
        st.tuples(st.just("trim"), st.integers(0, 6)),
        st.tuples(st.just("create"), GROUPS, st.sampled_from(["0", "$", "5-0"])),
        st.tuples(st.just("delete"), GROUPS),
        st.tuples(st.just("turn"), GROUPS, CONSUMERS, TURNS),
        st.tuples(st.just("turn"), GROUPS, CONSUMERS, TURNS),
        st.tuples(st.just("turn"), GROUPS, CONSUMERS, TURNS),
        st.tuples(st.just("requeue"), GROUPS, PLACES),
        st.tuples(st.just("look"), GROUPS, CONSUMERS),
    ),
    max_size=30,
)


class LogPlay:
    """A log whose ids are told as the place at which they were appended."""

    def __init__(self, log) -> None:
        self.log = log
        self.ids: list[str] = []

    def id(self, place: int) -> str:
        return self.ids[place] if place < len(self.ids) else f"{place + 1}-7"

    def place(self, entry_id: str) -> object:
        return self.ids.index(entry_id) if entry_id in self.ids else entry_id

    def claimed(self, found: list[Claimed]) -> list[object]:
        return [(self.place(each.id), each.payload, each.deliveries) for each in found]

    async def step(self, verb, *args) -> object:
        return await getattr(self, verb)(*args)

    async def append(self, payloads, token):
        ids = await self.log.append_many(payloads, token=token)
        self.ids += [each for each in ids if each not in self.ids]
        return [self.place(each) for each in ids]

    async def read(self, place, limit):
        found = await self.log.read(after=self.id(place), limit=limit)
        return [(self.place(each.id), each.payload) for each in found]

    async def trim(self, length):
        return await self.log.trim(max_length=length), await self.log.length()

    async def create(self, group, after):
        return await self.log.create_group(group, after=after)

    async def delete(self, group):
        return await self.log.delete_group(group)

    async def turn(self, group, consumer, said):
        turn = GroupTurn(
            acks=[self.id(each) for each in said["acks"]],
            releases=[self.id(each) for each in said["releases"]],
            retries={self.id(each): delay for each, delay in said["retries"].items()},
            buried={self.id(each): reason for each, reason in said["buried"].items()},
            renews=[self.id(each) for each in said["renews"]],
            limit=said["limit"],
            idle=FOREVER,
            delete=said["delete"],
        )
        turned = await self.log.turn(group, consumer, turn)
        assert isinstance(turned, GroupTurned)
        return self.claimed(turned.claimed), [self.place(each) for each in turned.lost]

    async def requeue(self, group, places):
        return await self.log.requeue(group, [self.id(each) for each in places])

    async def look(self, group, consumer):
        log = self.log
        pending = await log.pending(group)
        return [
            self.claimed(await log.held(group, consumer)),
            [(self.place(each.id), each.consumer, each.deliveries) for each in pending],
            await log.lag(group),
            [(*self.claimed([letter]), reason) for letter, reason in await log.dead(group)],
            await log.wait(group, timeout=0),
        ]


async def play_log(backend, name, steps):
    play, told = LogPlay(backend.log(name)), []
    await play.append([b"first", b"second", b"third"], None)
    await play.create("g", "0")
    for step in [*steps, ("look", "g", "c"), ("look", "g", "d"), ("look", "h", "c")]:
        told.append((step[0], await answer(play.step(*step))))
    return told


@pytest.mark.promise("backends-same-answers")
def test_logs(both):
    @settings(EXAMPLES, max_examples=120)
    @given(LOG_STEPS)
    def same(steps):
        both.compare(play_log, steps)

    same()
