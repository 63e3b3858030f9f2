"""The conformance suites notice: each of these small mistakes in a backend fails one of them.

A mutant is one piece of text replaced: in a method of the memory backend, or in a Lua script of the
Redis backend. If the text is not there any more, the code has changed: make the same mistake anew.
"""

from __future__ import annotations
import __future__

import hashlib
import inspect
import textwrap
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import count
from pkgutil import iter_modules

import anyio
import pytest

from aiopatterns import backends
from aiopatterns.backends import memory, open_backend
from aiopatterns.backends.redis import scripts
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.testing import conformance, simulate
from aiopatterns.testing.conformance import Case


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Args:
        name: What comes of it.
        place: ``Class.method`` of the memory backend, or ``method`` of whichever of its classes
            has the text, or the name of a Lua script.
        old: What stands there, once.
        new: What is put there instead.
        suite: The suite that has to notice.
    """

    name: str
    place: str
    old: str
    new: str
    suite: str

    def __str__(self) -> str:
        return self.name

    def applied(self, source: str) -> str:
        assert source.count(self.old) == 1, f"{self.old!r} stands {source.count(self.old)} times"
        return source.replace(self.old, self.new)

    def cases(self, unit: float) -> list[Case]:
        suite = getattr(conformance, f"{self.suite}Conformance")
        return [Case(suite, name, unit) for name in vars(suite) if name.startswith("test_")]


MEMORY = [
    Mutant(
        "cas-does-not-ask-for-absence",
        "MemoryKv._change",
        "and self._values.get(key) != expected",
        "and expected is not None and self._values.get(key) != expected",
        "Kv",
    ),
    Mutant("cas-tells-nobody", "MemoryKv._change", "if notify is not None:", "if False:", "Kv"),
    Mutant(
        "it-is-never-too-late", "MemoryKv._change", "self._home.time() >= before", "False", "Kv"
    ),
    Mutant(
        "a-notice-is-the-key",
        "MemoryKv._change",
        "key.encode() if notice is None else notice",
        "key.encode()",
        "Kv",
    ),
    Mutant(
        "incr-gives-a-new-life",
        "MemoryKv.incr",
        'self._values.change(key, b"%d" % total)',
        'self._values.put(key, b"%d" % total, life)',
        "Kv",
    ),
    Mutant(
        "a-scan-does-not-mind-the-prefix",
        "MemoryKv.scan",
        "key.startswith(prefix)",
        "prefix in key",
        "Kv",
    ),
    Mutant("a-scan-has-one-page", "MemoryKv.scan", "found[-1] if", "None if", "Kv"),
    Mutant("a-scan-shows-what-is-over", "Expiring.live", "if expires > now", "", "Kv"),
    Mutant("nothing-expires", "Expiring.get", "expires <= self._home.now()", "False", "Kv"),
    Mutant("anybody-releases-a-lease", "MemoryHeld.release", "is not self", "is None", "Lease"),
    Mutant("anybody-renews-a-lease", "MemoryHeld.renew", "is not self", "is None", "Lease"),
    Mutant("a-token-comes-twice", "Leases.next_token", "self._token + 1", "self._token", "Lease"),
    Mutant(
        "a-limit-forgets-the-cost",
        "MemoryLimiter.acquire",
        "spacing.wait(owed, cost)",
        "spacing.wait(owed, 0)",
        "Limiter",
    ),
    Mutant(
        "a-look-takes-one",
        "MemoryLimiter.acquire",
        "if cost > 0:",
        "if True:\n        cost = cost or 1",
        "Limiter",
    ),
    Mutant(
        "a-new-fence-is-no-change",
        "MemoryDirectory.put",
        "!= (data, fence)",
        "!= (data, stored.fence)",
        "Directory",
    ),
    Mutant(
        "an-equal-fence-is-refused",
        "MemoryDirectory.put",
        "stored.fence > fence",
        "stored.fence >= fence",
        "Directory",
    ),
    Mutant(
        "an-expiry-is-no-change",
        "MemoryDirectory._look",
        "if len(members) < before:",
        "if False:",
        "Directory",
    ),
    Mutant(
        "the-newest-message-is-lost",
        "deliver",
        "self._inbox.popleft()",
        "return",
        "PubSub",
    ),
    Mutant(
        "a-token-appends-twice",
        "MemoryLog.append_many",
        "if before is not None:",
        "if False:",
        "Log",
    ),
    Mutant(
        "a-release-counts",
        "Group._give_back",
        "held.deliveries - 1",
        "held.deliveries",
        "Group",
    ),
    Mutant(
        "anybody-settles-an-entry",
        "Group._take",
        " or held.consumer != consumer",
        "",
        "Group",
    ),
    Mutant(
        "entries-are-abandoned-at-once",
        "Group._abandoned",
        "held.since > till",
        "False",
        "Group",
    ),
    Mutant(
        "held-shows-what-others-hold",
        "Group.held",
        " if held.consumer == consumer else None",
        "",
        "Pending",
    ),
    Mutant(
        "a-lost-answer-settles-twice",
        "step",
        "if new := turn.number > holder.number:",
        "if new := True:",
        "Settling",
    ),
    Mutant(
        "one-crash-too-many",
        "_reap",
        "job.tries >= job.attempts",
        "job.tries > job.attempts",
        "Workers",
    ),
    Mutant(
        "suspects-are-not-alone",
        "_reap",
        "job.since = now",
        "job.since = None",
        "Workers",
    ),
    Mutant(
        "nobody-runs-dry-for-suspects",
        "_give_alone",
        "return stepped.quarantine",
        "return False",
        "Workers",
    ),
    Mutant(
        "places-are-never-free",
        "_settle",
        "limits.free(job)",
        "limits.flush()",
        "Limits",
    ),
    Mutant("one-more-than-the-limit", "Limits._has_room", "< most", "<= most", "Limits"),
    Mutant(
        "a-release-goes-to-the-end",
        "Places.push",
        "last=False",
        "last=True",
        "Settling",
    ),
    Mutant(
        "keep-last-does-not-wait",
        "UniqueKeys.start",
        "self._running[unique.key] = job.id",
        "pass",
        "Unique",
    ),
    Mutant(
        "a-key-is-never-free",
        "UniqueKeys.end",
        "self._leave(unique.key, job)",
        "pass",
        "Unique",
    ),
    Mutant(
        "a-dead-job-cancels-nobody",
        "work_off",
        "strict and not well",
        "False",
        "Dependencies",
    ),
    Mutant(
        "a-parent-counts-twice",
        "Edges.add",
        "if kid.id not in kids:",
        "if True:",
        "Dependencies",
    ),
    Mutant(
        "a-cancel-reaches-nobody",
        "cancel",
        "job.stop = job.holder.asked",
        "job.holder.asked",
        "Pages",
    ),
    Mutant(
        "requeued-jobs-keep-their-attempts",
        "requeue",
        "= 0, None, False, ()",
        "= job.tries, None, False, ()",
        "Pages",
    ),
    Mutant(
        "a-dead-letter-too-many",
        "Kept.bury",
        "> DEAD_LIMIT",
        "> DEAD_LIMIT + 1",
        "Settling",
    ),
    Mutant("nobody-is-woken", "Bell.ring", "bed.wake()", "pass", "Events"),
    Mutant(
        "a-start-is-not-told",
        "_start",
        'tell("started"',
        'tell("queued"',
        "Events",
    ),
    Mutant("delays-are-over-at-once", "Places.promote", "and job.at <= now", "", "Queue"),
    Mutant(
        "low-priorities-first",
        "_claim",
        "range(9, -1, -1)",
        "range(10)",
        "Queue",
    ),
]

REDIS = [
    Mutant(
        "cas-overwrites-anything",
        "kv_compare_and_set",
        "elseif held ~= ARGV[2] then",
        "elseif not held then",
        "Kv",
    ),
    Mutant(
        "a-lost-answer-settles-twice",
        "queue_step",
        "if number > tonumber(known and call('HGET', TURNS, worker) or 0) then",
        "if number > 0 then",
        "Settling",
    ),
    Mutant(
        "a-release-counts",
        "log_turn",
        "counts[i], times[i] = count - 1,",
        "counts[i], times[i] = count,",
        "Group",
    ),
    Mutant("suspects-are-not-alone", "queue_step", "call('HSET', MARKED, id, now)", "", "Workers"),
    Mutant(
        "places-are-never-free",
        "queue_common",
        "call('HINCRBY', BUSY, bucket[1], -1)",
        "1",
        "Limits",
    ),
    Mutant(
        "anybody-renews-a-lease", "lease_renew", "held[1] ~= ARGV[1] or", "not held[1] or", "Lease"
    ),
    Mutant(
        "cas-tells-nobody", "kv_compare_and_set", "if ARGV[6] ~= '' then", "if false then", "Kv"
    ),
    Mutant(
        "a-change-is-never-too-late",
        "kv_compare_and_set",
        "if ARGV[8] ~= '' then",
        "if false then",
        "Kv",
    ),
    Mutant(
        "a-change-needs-a-key",
        "kv_compare_and_set",
        "if ARGV[1] ~= 'any' then",
        "if true then",
        "Kv",
    ),
    Mutant("incr-gives-a-new-life", "kv_incr", "if created then", "if ARGV[2] ~= '' then", "Kv"),
    Mutant(
        "a-lease-has-two-holders",
        "lease_acquire",
        "if held[1] and tonumber(held[2]) > now then",
        "if false then",
        "Lease",
    ),
    Mutant(
        "a-limit-forgets-the-cost",
        "limiter_acquire",
        "(owed + cost - burst)",
        "(owed - burst)",
        "Limiter",
    ),
    Mutant(
        "a-change-is-a-renewal",
        "directory_put",
        "if stored == record then",
        "if stored then",
        "Directory",
    ),
    Mutant(
        "an-equal-fence-is-refused",
        "directory_put",
        "'^%d+')) > tonumber",
        "'^%d+')) >= tonumber",
        "Directory",
    ),
    Mutant("a-token-appends-twice", "log_append", "if before then return before end", "", "Log"),
    Mutant(
        "anybody-settles-an-entry", "log_turn", "if who == consumer then", "if who then", "Group"
    ),
    Mutant(
        "entries-are-abandoned-at-once",
        "log_turn",
        "'-inf', now - ARGV[4],",
        "'-inf', now,",
        "Group",
    ),
    Mutant(
        "one-crash-too-many",
        "queue_step",
        "elseif tries >= struct",
        "elseif tries > struct",
        "Workers",
    ),
    Mutant(
        "the-quick-turn-has-no-fence",
        "queue_step",
        "if held == 0 then return false end",
        "",
        "Settling",
    ),
    Mutant(
        "the-quick-turn-takes-low-priorities-first",
        "queue_step",
        "for priority = 9, 1, -1 do\n    if redis.call",
        "for priority = 1, 9 do\n    if redis.call",
        "Queue",
    ),
    Mutant(
        "the-quick-turn-takes-nothing-back",
        "queue_step",
        "or tonumber(workers[2]) <= now then",
        "then",
        "Workers",
    ),
    Mutant(
        "the-quick-turn-promotes-nothing",
        "queue_step",
        "if next_due <= 0 then",
        "if false then",
        "Queue",
    ),
    Mutant(
        "the-quick-enqueue-knows-no-job",
        "queue_enqueue",
        "if found then return false end\n  end\n  if redis",
        "end\n  if redis",
        "Queue",
    ),
    Mutant(
        "the-quick-enqueue-knows-no-outcome",
        "queue_enqueue",
        "tag .. ':watch', unpack(names)) > 0",
        "tag .. ':watch') > 0",
        "Queue",
    ),
    Mutant(
        "nobody-runs-dry-for-suspects",
        "queue_step",
        "quarantine = appointed == worker",
        "quarantine = false",
        "Workers",
    ),
    Mutant(
        "a-release-goes-to-the-end",
        "queue_common",
        "head and 'LPUSH' or 'RPUSH'",
        "'RPUSH'",
        "Settling",
    ),
    Mutant(
        "a-dead-job-cancels-nobody",
        "queue_common",
        "kids[i + 1] == '1' and parent[2] == '0'",
        "false",
        "Dependencies",
    ),
    Mutant(
        "outcomes-are-not-kept", "queue_common", "if keep > 0 then", "if false then", "Settling"
    ),
    Mutant(
        "dead-letters-without-end",
        "queue_common",
        "if surplus > 0 then",
        "if false then",
        "Settling",
    ),
    Mutant(
        "letters-of-one-instant-lose-their-order",
        "queue_common",
        "math.max(now * 1000, last + 1)",
        "now * 1000",
        "Pages",
    ),
    Mutant(
        "a-key-is-never-taken",
        "queue_enqueue",
        "if unique then take_key(id, unique) end",
        "",
        "Unique",
    ),
    Mutant(
        "keep-last-does-not-wait",
        "queue_step",
        "if mode == 'k' then call('HSET', LAST, key, id) end",
        "",
        "Unique",
    ),
    Mutant("a-cancel-reaches-nobody", "queue_cancel", "call('SADD', STOP, id)", "", "Pages"),
    Mutant(
        "delays-are-over-at-once",
        "queue_step",
        "call('ZRANGEBYSCORE', DUE, '-inf', now,",
        "call('ZRANGEBYSCORE', DUE, '-inf', '+inf',",
        "Queue",
    ),
    Mutant(
        "low-priorities-first",
        "queue_step",
        "for priority = 9, 1, -1 do claim_lane(priority) end",
        "for priority = 1, 9 do claim_lane(priority) end",
        "Queue",
    ),
]
SHORT = 6


def methods(place: str) -> list[tuple[type, str]]:
    """Find ``Class.method``, or a method of any class, in the memory backend and what it shares."""
    class_name, _, method = place.rpartition(".")
    found = {
        each: method
        for package in (backends, memory)
        for module in iter_modules(package.__path__, f"{package.__name__}.")
        if not module.ispkg
        for each in vars(import_module(module.name)).values()
        if isinstance(each, type) and method in vars(each) and class_name in {"", each.__name__}
    }
    return list(found.items())


def mutate_method(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the method with the mistake into its class."""
    found = [
        (owner, method, source)
        for owner, method in methods(mutant.place)
        if mutant.old in (source := textwrap.dedent(inspect.getsource(getattr(owner, method))))
    ]
    assert len(found) == 1, f"{mutant.old!r} stands in {len(found)} methods {mutant.place}"
    owner, method, source = found[0]
    flags = __future__.annotations.compiler_flag
    code = compile(mutant.applied(source), "mutant", "exec", flags=flags, dont_inherit=True)
    made: dict[str, object] = {}
    exec(code, vars(import_module(owner.__module__)), made)
    monkeypatch.setattr(owner, method, made[method])


def mutate_script(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loader of scripts read the mistake."""
    read = scripts._read
    mistaken = mutant.applied(read(mutant.place))
    texts = {}

    def changed(name: str) -> str:
        return mistaken if name == mutant.place else read(name)

    def text(script: scripts.Script) -> str:
        if script.name not in texts:
            texts[script.name] = scripts._INCLUDE.sub(
                lambda found: changed(found[1]), changed(script.name)
            )
        return texts[script.name]

    def sha(script: scripts.Script) -> str:
        return hashlib.sha1(text(script).encode()).hexdigest()

    # Scripts are made once for each process and keep what they have read: look past that.
    monkeypatch.setattr(scripts.Script, "text", property(text))
    monkeypatch.setattr(scripts.Script, "sha", property(sha))


def noticed_by(mutant: Mutant, run, unit: float) -> str | None:
    """Return the first case that fails, with its error; None if the mutant passes for right."""
    for case in mutant.cases(unit):
        try:
            run(case)
        except Exception as error:
            return f"{case}: {type(error).__name__}: {error}"
    return None


async def on_memory(case: Case) -> None:
    async with open_backend("memory://") as backend:
        await case(backend)


@pytest.mark.promise("backends-conformance-mutants")
@pytest.mark.parametrize("mutant", MEMORY, ids=str)
def test_a_mistake_in_the_memory_backend_is_noticed(mutant, monkeypatch):
    mutate_method(mutant, monkeypatch)
    noticed = noticed_by(mutant, lambda case: simulate(partial(on_memory, case)), unit=0.05)
    print(noticed)
    assert noticed is not None, f"no case of {mutant.suite} has noticed {mutant}"


@pytest.fixture(scope="module")
def server():
    with RedisServer(private=True) as server:
        yield server


def check_redis(mutant: Mutant, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate_script(mutant, monkeypatch)
    namespaces = count()

    async def on_redis(case: Case) -> None:
        # Another namespace for each case: nothing is left of the one before that matters.
        async with open_backend(server.url, namespace=f"m{next(namespaces)}") as backend:
            await case(backend)

    noticed = noticed_by(mutant, lambda case: anyio.run(on_redis, case), unit=0.03)
    server.command("FLUSHALL")
    server.command("SCRIPT", "FLUSH")
    print(noticed)
    assert noticed is not None, f"no case of {mutant.suite} has noticed {mutant}"


@pytest.mark.real
@pytest.mark.promise("backends-conformance-mutants")
@pytest.mark.parametrize("mutant", REDIS[:SHORT], ids=str)
def test_a_mistake_in_a_script_is_noticed(mutant, server, monkeypatch):
    check_redis(mutant, server, monkeypatch)


@pytest.mark.real
@pytest.mark.stress
@pytest.mark.parametrize("mutant", REDIS[SHORT:], ids=str)
def test_any_mistake_in_a_script_is_noticed(mutant, server, monkeypatch):
    check_redis(mutant, server, monkeypatch)
