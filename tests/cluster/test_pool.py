"""Which endpoints may be used: tiers, zones, ejection and its trial, panic, newcomers."""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import inf
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aiopatterns.cluster import (
    Ejection,
    EndpointEjected,
    EndpointRestored,
    EndpointSkipped,
    LeastLoaded,
    PoolPanicked,
    PowerOfTwo,
    Random,
    RoundRobin,
    WeightedRoundRobin,
)
from aiopatterns.cluster.consistent import ConsistentHash
from aiopatterns.cluster.pick import Pick
from aiopatterns.cluster.pool import Pool, Rules
from aiopatterns.core.clock import ClockSource, monotonic, rng, set_source, wall
from aiopatterns.core.errors import NoEndpointError
from aiopatterns.testing import capture_events
from tests.cluster.endpoints import instances, who

EJECT = Ejection(consecutive=2, base=30.0)


class Bench:
    """A pool, the time, and calls as a test wants them."""

    def __init__(self, present=(), stale=(), **given):
        self.now = 1_000.0
        rules: dict[str, Any] = {"strategy": RoundRobin(), "eject": EJECT} | given
        self.before = set_source(ClockSource(lambda: self.now, wall, rng()))
        self.pool = Pool(Rules("users", **rules))
        self.pool.update(present, stale)

    def call(self, outcome="success", *, exclude=()):
        """Make one call; returns the id of its endpoint."""
        return self.end(self.begin(exclude=exclude), outcome)

    def begin(self, *, exclude=(), key=None):
        pick = Pick(self.pool, None, key, ())
        endpoint = self.pool.take(pick, key, set(exclude), monotonic())
        pick.generation = endpoint.standing.generation
        return pick, endpoint

    def end(self, begun, outcome="success"):
        pick, endpoint = begun
        self.pool.end(pick, endpoint, outcome, OSError("refused") if outcome == "failure" else None)
        return endpoint.id

    def fail(self, name):
        """Fail calls of one endpoint until it is ejected."""
        for _ in range(EJECT.consecutive):
            others = {each.id for each in self.pool.endpoints} - {name}
            assert self.call("failure", exclude=others) == name

    def used(self):
        return "".join(each.id for each in self.pool.usable)

    def out(self):
        found = self.pool.statistics().endpoints
        return "".join(name for name, each in found.items() if each.ejected)


@pytest.fixture
def bench():
    made = []

    def make(*args, **kwargs):
        made.append(Bench(*args, **kwargs))
        return made[-1]

    yield make
    for each in reversed(made):
        set_source(each.before)


@pytest.mark.promise("cluster-balancer-tiers")
@pytest.mark.parametrize(
    ("present", "stale", "used"),
    [
        ("ab", "c", "ab"),
        ("", "cd", "cd"),
        ([who("a", 0), who("b", 1)], "c", "b"),
        ([who("a", 0), who("b", 0)], "c", "ab"),
        ("", [who("c", 0), who("d", 1)], "d"),
        ("ba", "", "ab"),
    ],
)
def test_ready_ones_with_weight_before_ready_ones_before_stale_ones(bench, present, stale, used):
    def made(names):
        return instances(names) if isinstance(names, str) else names

    here = bench(made(present), made(stale))
    assert here.used() == used
    assert {here.call() for _ in range(20)} == set(used)


def test_stale_ones_are_told(bench):
    found = bench(instances("a"), instances("b")).pool.statistics().endpoints
    assert {name: each.stale for name, each in found.items()} == {"a": False, "b": True}


@pytest.mark.promise("cluster-balancer-ejection")
def test_out_after_failures_in_a_row_and_back_by_one_trial(bench):
    here = bench(instances("abc"))
    with capture_events() as events:
        here.fail("a")
        assert (here.out(), here.used()) == ("a", "bc")
        here.now += 29.9
        assert {here.call() for _ in range(10)} == {"b", "c"}
        here.now += 0.1
        trial = here.begin()
        assert trial[1].id == "a"
        assert {here.call() for _ in range(10)} == {"b", "c"}  # one, while it is under way
        here.now += 0.5
        here.end(trial)
        assert (here.out(), here.used()) == ("", "abc")
    assert events == [
        EndpointEjected("users", "a", 30.0, "OSError('refused')"),
        EndpointRestored("users", "a", 30.5),
    ]
    found = here.pool.statistics()
    assert (found.ejections, found.trials, found.panics) == (1, 1, 0)


@pytest.mark.promise("cluster-balancer-ejection")
def test_a_trial_that_fails_ejects_for_longer(bench):
    here = bench(instances("abc"))
    here.fail("a")
    for length in (30, 60, 90):
        here.now += length
        assert here.call("failure") == "a"
        assert here.out() == "a"
    assert here.pool.statistics().ejections == 4


@pytest.mark.promise("cluster-balancer-ejection")
def test_a_trial_that_says_nothing_takes_no_calls_from_the_others(bench):
    here = bench(instances("abc"))
    here.fail("a")
    here.now += 30
    for _ in range(5):
        assert here.call("ignore") == "a"
        assert {here.call("ignore") for _ in range(10)} == {"b", "c"}
        here.now += 3
    assert here.call() == "a"
    assert here.out() == ""


def test_a_trial_that_hangs_is_given_up_and_its_late_success_counts(bench):
    here = bench(instances("abc"))
    here.fail("a")
    here.now += 30
    hangs = here.begin()
    here.now += 30
    again = here.begin()
    assert (hangs[1].id, again[1].id) == ("a", "a")
    here.end(hangs)
    assert here.out() == ""
    here.end(again, "failure")  # of a state that is over
    assert here.out() == ""


def test_a_trial_that_hangs_and_fails_late_changes_nothing(bench):
    here = bench(instances("abc"))
    here.fail("a")
    here.now += 30
    hangs = here.begin()
    here.now += 30
    again = here.begin()
    here.end(hangs, "failure")
    assert here.pool.statistics().ejections == 1
    here.end(again, "ignore")
    here.now += 3
    assert here.call() == "a"


def test_no_trial_for_a_call_that_excludes_it(bench):
    here = bench(instances("abc"))
    here.fail("a")
    here.now += 30
    assert {here.call(exclude="a") for _ in range(10)} == {"b", "c"}
    assert here.call() == "a"


def test_a_call_that_began_before_says_nothing_after(bench):
    here = bench(instances("ab"))
    late = [here.begin(exclude="b") for _ in range(4)]
    here.fail("a")
    here.end(late[0])
    assert here.out() == "a"
    here.now += 30
    assert here.call() == "a"
    assert here.out() == ""
    for each in late[1:]:
        here.end(each, "failure")
    assert here.out() == ""


@pytest.mark.promise("cluster-balancer-never-empty")
def test_at_most_the_share_and_never_the_last(bench):
    here = bench(instances("abcd"))
    for name in "abcd":
        for _ in range(5):
            here.call("failure", exclude=set("abcd") - {name})
    assert len(here.out()) == 2
    alone = bench(instances("a"))
    for _ in range(20):
        alone.call("failure")
    assert alone.out() == ""


def test_without_ejection_nothing_is_out(bench):
    here = bench(instances("ab"), eject=None)
    for _ in range(50):
        here.call("failure")
    assert here.out() == ""


@pytest.mark.promise("cluster-balancer-panic")
def test_when_too_few_are_in_all_are_used_and_it_is_counted(bench):
    here = bench(instances("abcd"), eject=Ejection(consecutive=2, max_ejected_ratio=1))
    with capture_events() as events:
        for name in "abc":
            here.fail(name)
    assert [each for each in events if isinstance(each, PoolPanicked)] == [
        PoolPanicked("users", 1, 4)
    ]
    before = here.pool.statistics().panics
    assert {here.call("ignore") for _ in range(20)} == set("abcd")
    assert here.pool.pick(None).id in "abcd"
    assert here.pool.statistics().panics == before + 21
    while len(here.out()) > 2:  # whoever answers is in again
        here.call()
    assert len(here.used()) == 2
    assert here.pool.pick(None).id in here.used()


def test_a_pool_that_loses_those_that_were_in_panics(bench):
    here = bench(instances("ab"))
    here.fail("a")
    here.pool.update(instances("a"))
    assert (here.out(), here.used()) == ("a", "a")
    assert here.call() == "a"
    assert here.out() == ""


def test_a_zone_is_preferred_while_half_of_it_is_in(bench):
    near, far = instances("abc", zone="near"), instances("de", zone="far")
    here = bench(near + far, zone="near")
    assert here.used() == "abc"
    here.fail("a")
    assert here.used() == "bc"
    here.fail("b")
    assert here.used() == "cde"
    here.now += 30
    assert [here.call(), here.call()] == ["a", "b"]
    assert here.used() == "abc"
    here.pool.update(far)
    assert here.used() == "de"


def test_whom_a_call_gets_that_excludes_those_in_use(bench):
    near, far = instances("ab", zone="near"), instances("cd", zone="far")
    here = bench([*near, *far, who("w", 0, zone="far")], instances("s"), zone="near")
    here.fail("d")
    for excluded, rest in (("a", "b"), ("ab", "c"), ("abc", "d"), ("abcd", "s")):
        assert here.call("ignore", exclude=excluded) == rest
    with pytest.raises(
        NoEndpointError, match="no endpoint left: all that have a weight are excluded"
    ):
        here.call(exclude="abcds")


@pytest.mark.promise("cluster-bad-input")
def test_nobody_is_there(bench):
    here = bench()
    with pytest.raises(NoEndpointError, match="service 'users' has no endpoint: none is there"):
        here.call()
    with pytest.raises(NoEndpointError) as caught:
        here.pool.pick(None)
    assert caught.value.name == "users"
    unknown = Pool(Rules("users", RoundRobin()))
    with pytest.raises(NoEndpointError, match="its registry has not answered yet"):
        unknown.pick(None)


def test_where(bench):
    allowed = {"a"}
    here = bench(instances("ab"), where=lambda each: each.id in allowed)
    assert here.used() == "a"
    allowed.add("b")
    here.pool.refresh()
    assert here.used() == "ab"
    allowed.clear()
    here.pool.refresh()
    with pytest.raises(NoEndpointError, match="none of those that are there passes 'where'"):
        here.call()


def test_where_that_raises_leaves_out_that_one(bench):
    def where(each):
        return float(each.version) >= 2

    present = [who("a", version="2"), who("b", version="1"), who("c", version="two")]
    with capture_events() as events:
        here = bench(present, where=where)
    assert here.used() == "a"
    (event,) = events
    assert isinstance(event, EndpointSkipped)
    assert (event.instance, event.service) == ("c", "users")
    assert "could not convert" in event.error


def test_what_is_known_is_kept_while_id_address_and_version_stay(bench):
    here = bench(instances("ab"))
    here.fail("a")
    here.pool.update([who("a", 5, metadata={"rack": "7"}), who("b")])
    assert here.out() == "a"
    assert here.pool.statistics().endpoints["a"].instance.weight == 5
    here.pool.update([who("a", 5, version="2"), who("b")])
    assert here.out() == ""


def test_the_same_again_changes_nothing(bench):
    here = bench(instances("abc"))
    picker = here.pool._picker
    here.pool.update(tuple(instances("abc")))
    assert here.pool._picker is picker


def test_a_failing_trial_does_not_disturb_the_order_of_the_others(bench):
    here = bench(instances("abcd"))
    here.fail("a")
    picker = here.pool._picker
    here.now += 30
    assert here.call("failure") == "a"
    assert here.pool._picker is picker


def test_a_call_of_one_that_has_gone_ends_quietly(bench):
    here = bench(instances("ab"))
    gone = [here.begin(exclude="b") for _ in range(3)]
    here.pool.update(instances("b"))
    for each in gone:
        here.end(each, "failure")
    found = here.pool.statistics()
    assert (found.in_flight, found.failures, found.ejections) == (0, 3, 0)


@pytest.mark.promise("cluster-balancer-slow-start")
@pytest.mark.parametrize("strategy", [RoundRobin(), WeightedRoundRobin(), Random()], ids=repr)
def test_a_newcomer_starts_slowly(bench, strategy):
    here = bench(instances("ab"), strategy=strategy, slow_start=10.0)
    assert here.pool._wake == inf
    here.now += 100
    here.pool.update(instances("abc"))
    shares = []
    for _ in range(11):
        counts = Counter(here.call() for _ in range(2_100))
        shares.append(counts["c"] / counts["a"])
        here.now += 1.0
    assert shares[0] == pytest.approx(0.1, abs=0.05)
    assert shares[5] == pytest.approx(0.5, abs=0.1)
    assert shares[10] == pytest.approx(1.0, abs=0.2)
    assert here.pool._wake == inf


def test_choosing_moves_a_newcomer_on_as_well(bench):
    here = bench(instances("ab"), slow_start=10.0)
    assert here.pool.turn is not None
    here.pool.update(instances("abc"))
    assert here.pool.turn is None
    here.now += 10.0
    assert here.pool.pick(None).id in "abc"
    assert here.pool.turn is not None


STRATEGIES = (
    RoundRobin(),
    WeightedRoundRobin(),
    PowerOfTwo(),
    LeastLoaded(),
    ConsistentHash(),
    Random(),
)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_weights_of_every_kind_with_newcomers(bench, strategy):
    for weights in product([0, 1e-9, 0.1, 777.3, 1e9], repeat=3):
        here = bench(instances("z"), strategy=strategy, slow_start=10.0)
        here.pool.update([who(str(at), weight) for at, weight in enumerate(weights)])
        serving = [str(at) for at, weight in enumerate(weights) if weight or not any(weights)]
        for _ in range(3):
            assert here.used() == "".join(serving)
            assert {here.call() for _ in range(5)} <= set(serving)
            here.now += 4.0


class Life(RuleBasedStateMachine):
    """Whatever comes and goes, fails and hangs: a call gets an endpoint, and nobody is forgotten."""

    @initialize(strategy=st.sampled_from(STRATEGIES), slow=st.sampled_from([0.0, 7.0]))
    def begin(self, strategy, slow):
        self.here = Bench(
            instances("abcd"), strategy=strategy, slow_start=slow, zone="near", eject=EJECT
        )
        self.flying = []
        self.tried = {}

    def teardown(self):
        if hasattr(self, "here"):
            set_source(self.here.before)

    @rule(
        present=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3), st.booleans())),
        stale=st.sets(st.sampled_from("stuv")),
    )
    def change(self, present, stale):
        found = {n: who(n, weight, zone="near" if z else "far") for n, weight, z in present}
        self.here.pool.update(list(found.values()), instances("".join(sorted(stale))))

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds):
        self.here.now += seconds

    @rule(
        outcome=st.sampled_from(["success", "failure", "failure", "failure", "ignore", "hangs"]),
        key=st.sampled_from([None, "one", "two"]),
    )
    def call(self, outcome, key):
        if not self.here.pool.endpoints:
            with pytest.raises(NoEndpointError):
                self.here.begin(key=key)
            return
        begun = self.here.begin(key=key)
        self.flying.append(begun)
        if outcome != "hangs":
            self.here.end(self.flying.pop(), outcome)

    @rule(outcome=st.sampled_from(["success", "failure", "ignore"]))
    def end(self, outcome):
        if self.flying:
            self.here.end(self.flying.pop(0), outcome)

    @invariant()
    def figures_add_up(self):
        if not hasattr(self, "here"):
            return
        found = self.here.pool.statistics()
        assert found.in_flight == len(self.flying)
        assert found.calls == sum((found.in_flight, found.successes, found.failures, found.ignored))
        for endpoint in self.here.pool.endpoints:
            mine = [each for _, each in self.flying if each is endpoint]
            assert endpoint.in_flight == len(mine)

    @invariant()
    def somebody_is_in_use(self):
        if not hasattr(self, "here"):
            return
        pool = self.here.pool
        assert bool(pool.usable) == bool(pool.endpoints)
        if pool.usable:
            assert pool.pick("a key") in pool.usable

    @invariant()
    def who_is_out_has_a_way_back(self):
        if not hasattr(self, "here"):
            return
        for endpoint in self.here.pool.endpoints:
            standing = endpoint.standing
            if standing.out:
                assert standing.until - self.here.now <= EJECT.cap


TestLife = Life.TestCase
