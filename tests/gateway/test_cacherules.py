"""The rules of a shared cache, against the text of RFC 9111 and a model of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.gateway.cachecontrol import FOREVER, directives
from aiopatterns.gateway.cacherules import (
    MOST_VARY,
    Terms,
    bridges,
    conditions,
    freshen,
    terms,
    unchanged,
    variant,
    vary_names,
    verdict,
)

NOW = 784111777.0
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"  # NOW
LATER = b"Sun, 06 Nov 1994 08:50:37 GMT"  # a minute after it


def decided(
    status: int = 200, *, asked: bytes = b"", personal: bool = False, **fields: bytes
) -> Terms | None:
    named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return terms(status, named, asked=directives(asked), personal=personal, now=NOW, delay=2.0)


def kept(cache_control: bytes, **fields: bytes) -> Terms:
    found = terms(
        200,
        {b"cache-control": cache_control}
        | {name.replace("_", "-").encode(): value for name, value in fields.items()},
        asked={},
        personal=False,
        now=NOW,
        delay=2.0,
    )
    assert found is not None
    return found


@pytest.mark.parametrize("status", [200, 203, 204, 301, 404, 410])
def test_what_says_how_long_is_kept(status):
    found = decided(status, cache_control=b"max-age=60")
    assert found is not None
    assert (found.lifetime, found.age, found.life) == (60, 2, 58)


@pytest.mark.parametrize("status", [206, 304, 400, 401, 429, 500, 503, 599])
def test_other_statuses_are_not_kept(status):
    assert decided(status, cache_control=b"public, max-age=60") is None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"etag": b'"a"'},
        {"last_modified": DATE},
        {"cache_control": b"no-store, max-age=60"},
        {"cache_control": b"private, max-age=60"},
        {"cache_control": b'private="x-secret", max-age=60'},
        {"cache_control": b"max-age=0"},
        {"cache_control": b"no-cache"},
        {"cache_control": b"public"},
        {"expires": b"0"},
        {"expires": DATE, "date": DATE},
        {"cache_control": b"max-age=60", "vary": b"*"},
        {"cache_control": b"max-age=60", "vary": b"accept, *"},
        {"cache_control": b"max-age=60", "age": b"60"},
    ],
)
def test_what_does_not_say_so_or_forbids_it_is_not_kept(fields):
    assert decided(**fields) is None


@pytest.mark.promise("gateway-cache-cookies")
@pytest.mark.parametrize("said", [b"max-age=60", b"public, max-age=60", b"s-maxage=60"])
def test_what_sets_a_cookie_is_never_kept(said):
    assert decided(cache_control=said, set_cookie=b"id=1") is None


@pytest.mark.promise("gateway-cache-personal")
def test_answers_to_somebody_are_kept_only_by_an_explicit_word():
    assert decided(cache_control=b"max-age=60", personal=True) is None
    assert decided(cache_control=b"must-revalidate, max-age=60", personal=True) is None
    for said in (b"public, max-age=60", b"s-maxage=60"):
        found = decided(cache_control=said, personal=True)
        assert found is not None
        assert found.open
    anonymous = decided(cache_control=b"max-age=60")
    assert anonymous is not None
    assert not anonymous.open


def test_a_request_may_forbid_to_keep():
    assert decided(cache_control=b"max-age=60", asked=b"no-store") is None


def test_a_validator_alone_makes_it_worth_keeping_if_the_service_speaks_of_it():
    found = decided(cache_control=b"no-cache", etag=b'"a"')
    assert found is not None
    assert found.ask
    assert found.life == FOREVER
    assert decided(cache_control=b"max-age=0", last_modified=DATE) is not None
    assert decided(cache_control=b"public", etag=b'"a"') is not None
    assert decided(cache_control=b"max-age=0", etag=b"no tag") is None


def test_lifetimes_by_their_order():
    assert kept(b"s-maxage=5, max-age=60", expires=LATER).lifetime == 5
    assert kept(b"max-age=10", expires=LATER).lifetime == 10
    by_date = decided(expires=LATER, date=b"Sun, 06 Nov 1994 08:49:30 GMT")
    assert by_date is not None
    assert (by_date.lifetime, by_date.age) == (67, 7)
    by_clock = decided(expires=LATER)
    assert by_clock is not None
    assert by_clock.lifetime == 60


def test_the_age_when_it_comes():
    assert kept(b"max-age=60", age=b"10").age == 12
    assert kept(b"max-age=60", age=b"x").age == 2
    assert kept(b"max-age=60", date=LATER).age == 2, "a clock that is ahead makes nothing younger"
    assert kept(b"max-age=60", age=b"1", date=b"Sun, 06 Nov 1994 08:49:07 GMT").age == 30


@pytest.mark.parametrize(
    ("said", "age", "asked", "fate"),
    [
        (b"max-age=60", 59.9, b"", "fresh"),
        (b"max-age=60", 60, b"", "ask"),
        (b"max-age=60, stale-while-revalidate=30", 60, b"", "stale"),
        (b"max-age=60, stale-while-revalidate=30", 89.9, b"", "stale"),
        (b"max-age=60, stale-while-revalidate=30", 90, b"", "ask"),
        (b"max-age=60, stale-while-revalidate=30, must-revalidate", 60, b"", "ask"),
        (b"max-age=60, stale-while-revalidate=30, proxy-revalidate", 60, b"", "ask"),
        (b"s-maxage=60, stale-while-revalidate=30", 60, b"", "stale"),
        (b"max-age=60", 1, b"no-cache", "ask"),
        (b"max-age=60", 1, b"max-age=0", "ask"),
        (b"max-age=60", 20, b"max-age=10", "ask"),
        (b"max-age=60", 10, b"max-age=10", "fresh"),
        (b"max-age=60", 30, b"min-fresh=30", "ask"),
        (b"max-age=60", 29, b"min-fresh=30", "fresh"),
        (b"max-age=60", 65, b"max-stale=10", "stale"),
        (b"max-age=60", 70, b"max-stale=10", "ask"),
        (b"max-age=60", 9999, b"max-stale", "stale"),
        (b"max-age=60, must-revalidate", 65, b"max-stale", "ask"),
        (b"s-maxage=60", 65, b"max-stale", "ask"),
    ],
)
def test_what_is_given_out(said, age, asked, fate):
    assert verdict(kept(said), age, directives(asked)) == fate


def test_no_cache_is_asked_for_each_time():
    assert verdict(kept(b"no-cache", etag=b'"a"'), 0, {}) == "ask"
    assert verdict(kept(b"no-cache, max-age=60", etag=b'"a"'), 0, {}) == "ask"


@pytest.mark.parametrize(
    ("said", "age", "asked", "may"),
    [
        (b"max-age=60, stale-if-error=60", 119, b"", True),
        (b"max-age=60, stale-if-error=60", 120, b"", False),
        (b"max-age=60, stale-if-error=60", 1, b"no-cache", False),
        (b"max-age=60, stale-if-error=60, must-revalidate", 61, b"", False),
        (b"max-age=60", 61, b"stale-if-error=60", True),
        (b"max-age=60, must-revalidate", 61, b"stale-if-error=60", False),
        (b"s-maxage=60", 61, b"stale-if-error=60", False),
        (b"max-age=60", 61, b"", False),
    ],
)
def test_what_stands_in_for_an_error(said, age, asked, may):
    assert bridges(kept(said), age, directives(asked)) is may


WORDS = st.lists(
    st.sampled_from(
        [
            b"max-age=60",
            b"s-maxage=30",
            b"stale-while-revalidate=20",
            b"stale-if-error=40",
            b"must-revalidate",
            b"proxy-revalidate",
            b"no-cache",
            b"public",
        ]
    ),
    min_size=1,
    unique=True,
).map(b", ".join)
ASKED = st.lists(
    st.sampled_from([b"no-cache", b"max-age=10", b"min-fresh=5", b"max-stale=7", b"max-stale"]),
    unique=True,
    max_size=3,
).map(b", ".join)


@given(WORDS, ASKED, st.integers(0, 120))
def test_nothing_is_given_out_that_was_forbidden(said, asked, age):
    found = kept(said + b", public", etag=b'"a"')
    wants, says = directives(asked), directives(said)
    lifetime = 0 if b"no-cache" in says else says.get(b"s-maxage", says.get(b"max-age", 0))
    forbidden = {b"must-revalidate", b"proxy-revalidate", b"no-cache"} & says.keys()
    fate = verdict(found, age, wants)
    if fate != "ask":
        assert b"no-cache" not in wants
        assert b"no-cache" not in says
        assert age <= wants.get(b"max-age", age)
    if fate == "fresh":
        assert age + wants.get(b"min-fresh", 0) < lifetime
    if fate == "stale":
        assert not forbidden
        window = says.get(b"stale-while-revalidate", 0)
        if b"s-maxage" not in says:
            window = max(window, wants.get(b"max-stale", 0))
        assert age < lifetime + window
    if age >= lifetime and forbidden:
        assert fate == "ask"
        assert not bridges(found, age, wants)


def test_the_questions_that_are_asked():
    assert conditions(kept(b"max-age=60", etag=b'"a"', last_modified=DATE)) == [
        (b"if-none-match", b'"a"'),
        (b"if-modified-since", DATE),
    ]
    assert conditions(kept(b"max-age=60")) == []


def test_a_304_brings_what_is_kept_up_to_date():
    old = {
        b"etag": b'"a"',
        b"age": b"9",
        b"content-type": b"text/plain",
        b"cache-control": b"max-age=1",
    }
    news = {
        b"etag": b'W/"a"',
        b"cache-control": b"max-age=9",
        b"content-length": b"0",
        b"content-type": b"text/html",
        b"set-cookie": b"id=1",
    }
    assert freshen(old, news) == {
        b"etag": b'W/"a"',
        b"content-type": b"text/plain",
        b"cache-control": b"max-age=9",
    }
    assert freshen(old, {}) == {name: value for name, value in old.items() if name != b"age"}
    assert freshen(old, {b"etag": b'"b"'}) is None
    assert freshen({b"last-modified": DATE}, {b"etag": b'"b"'}) is None


def test_clients_that_have_it_already():
    terms = kept(b"max-age=60", etag=b'"a"', last_modified=DATE)
    assert unchanged(terms, {b"if-none-match": b'"x", "a"'}.get)
    assert not unchanged(terms, {b"if-none-match": b'"x"', b"if-modified-since": LATER}.get)
    assert unchanged(terms, {b"if-modified-since": DATE}.get)
    assert unchanged(terms, {b"if-modified-since": LATER}.get)
    assert not unchanged(terms, {b"if-modified-since": b"Sun, 06 Nov 1994 08:49:36 GMT"}.get)
    assert not unchanged(terms, {b"if-modified-since": b"x"}.get)
    assert not unchanged(kept(b"max-age=60"), {b"if-modified-since": DATE}.get)


@pytest.mark.promise("gateway-cache-vary")
def test_what_answers_vary_with():
    assert vary_names({}) == ()
    assert vary_names({b"vary": b"Accept-Language , accept,,Accept"}) == (
        b"accept",
        b"accept-language",
    )
    assert vary_names({b"vary": b"X-Forwarded-Proto, Host"}) == ()
    assert vary_names({b"vary": b"a, *"}) is None
    many = b",".join(b"x%d" % n for n in range(MOST_VARY + 1))
    assert vary_names({b"vary": many}) is None
    for name in (b"X-User-Id", b"x-request-id", b"Traceparent", b"X-Forwarded-For"):
        assert vary_names({b"vary": name}) is None, "the gateway says that, not the client"


VALUES = st.none() | st.binary(max_size=8)


@given(st.tuples(VALUES, VALUES), st.tuples(VALUES, VALUES))
def test_variants_differ_where_the_values_do(one, other):
    names = (b"a", b"b")

    def plain(values: tuple[Any, ...]) -> list[Any]:
        return [v and b",".join(e.strip() for e in v.split(b",")) for v in values]

    same = plain(one) == plain(other)
    left, right = dict(zip(names, one, strict=True)), dict(zip(names, other, strict=True))
    assert (variant(names, left.get) == variant(names, right.get)) is same


def test_lists_are_compared_without_their_spaces_and_where_it_does_not_matter_their_case():
    names = (b"accept-encoding", b"x")
    one = {b"accept-encoding": b"GZIP ,br", b"x": b"A"}
    assert variant(names, one.get) == variant(names, {**one, b"accept-encoding": b"gzip, br"}.get)
    assert variant(names, one.get) != variant(names, {**one, b"x": b"a"}.get)
