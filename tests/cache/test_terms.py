"""Terms: lives, timeouts and bounds, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiopatterns.cache.terms import MISSING, Bounds, CacheStatistics, LoadTimeouts, Ttl
from aiopatterns.testing import simulate

UNTYPED: dict[object, Any] = {each: each for each in (Ttl, LoadTimeouts, Bounds)}


@pytest.mark.promise("cache-bad-input")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: UNTYPED[Ttl](-1), ValueError, "ttl must be a finite number >= 0, not -1"),
        (lambda: UNTYPED[Ttl](math.nan), ValueError, "ttl must be a finite number >= 0, not nan"),
        (lambda: UNTYPED[Ttl]("60"), TypeError, "ttl must be a finite number >= 0, not '60'"),
        (lambda: UNTYPED[Ttl](60, stale=-1), ValueError, "stale must be"),
        (lambda: UNTYPED[Ttl](60, negative=-1), ValueError, "negative must be"),
        (lambda: UNTYPED[Ttl](60, early=-1), ValueError, "early must be"),
        (lambda: UNTYPED[Ttl](60, jitter=1.5), ValueError, "jitter must be between 0.0 and 1.0"),
        (lambda: UNTYPED[Ttl](None, stale=1), ValueError, "stale and early need a ttl"),
        (lambda: UNTYPED[Ttl](0, early=1), ValueError, "stale and early need a ttl"),
        (lambda: UNTYPED[LoadTimeouts](soft=0), ValueError, "soft must be"),
        (lambda: UNTYPED[LoadTimeouts](hard=-1), ValueError, "hard must be"),
        (lambda: UNTYPED[LoadTimeouts](soft=2, hard=2), ValueError, "soft must be below hard"),
        (lambda: UNTYPED[LoadTimeouts](abandoned="no"), ValueError, "abandoned must be one of"),
        (lambda: UNTYPED[Bounds](0), ValueError, "max_size must be a whole number >= 1"),
        (lambda: UNTYPED[Bounds](1.5), TypeError, "max_size must be a whole number >= 1"),
        (lambda: UNTYPED[Bounds](weight=0, weigh=len), ValueError, "weight must be"),
        (lambda: UNTYPED[Bounds](weight=1), ValueError, "weight and weigh go together"),
        (lambda: UNTYPED[Bounds](weigh=len), ValueError, "weight and weigh go together"),
        (lambda: UNTYPED[Bounds](weight=1, weigh=3), TypeError, "weigh must be a function"),
        (
            lambda: UNTYPED[Bounds](eviction="lfu"),
            ValueError,
            "eviction must be one of 's3fifo', 'lru'",
        ),
    ],
    ids=range(20),
)
def test_what_makes_no_sense_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_number_is_terms_too():
    assert Ttl.of(5) == Ttl(5)
    assert Ttl.of(None) == Ttl(None)
    assert Ttl.of(terms := Ttl(1, stale=2)) is terms
    assert Bounds.of(7) == Bounds(7)
    assert Bounds.of(bounds := Bounds(1, eviction="lru")) is bounds
    assert Bounds(weight=3, weigh=lambda _key, _value: 1).weight == 3
    assert LoadTimeouts(soft=1, hard=2) == LoadTimeouts(1, 2)
    assert LoadTimeouts(soft=1).hard is None


def test_lives():
    assert Ttl(10, stale=5).life("v", 100.0) == (110.0, 115.0)
    assert Ttl(None).life("v", 100.0) == (math.inf, math.inf)
    assert Ttl(0).life("v", 100.0) is None
    assert Ttl(10).life(None, 100.0) == (110.0, 110.0)
    assert Ttl(10, stale=5, negative=2).life(None, 100.0) == (102.0, 102.0)
    assert Ttl(0, negative=2).life(None, 100.0) == (102.0, 102.0)
    assert Ttl(10, negative=0).life(None, 100.0) is None
    assert Ttl(10, negative=2).life(MISSING, 100.0) == (102.0, 102.0)
    assert Ttl(10).life(MISSING, 100.0) is None


def test_jitter_only_shortens():
    async def scenario():
        lives = [Ttl(10, stale=1, jitter=0.2).life("v", 0.0) for _ in range(500)]
        fresh = [life.fresh_until for life in lives if life is not None]
        assert 8 <= min(fresh) < 8.2
        assert 9.8 < max(fresh) <= 10
        assert all(life and life.stale_until == life.fresh_until + 1 for life in lives)

    simulate(scenario)


def test_a_source_that_fails_rests():
    assert Ttl(10).retry_floor == 1
    assert Ttl(1000).retry_floor == 5
    assert Ttl(None).retry_floor == 0


def test_the_hit_ratio():
    figures = CacheStatistics(3, 1, 1, 0, 0, 0, 0, 0, 1)
    assert figures.hit_ratio == 0.75
    assert CacheStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0).hit_ratio == 0
