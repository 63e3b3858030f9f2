"""The stock of a cache: variants, indexes, bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.gateway.cachecontrol import Fields, fields_of
from aiopatterns.gateway.cacherules import MOST_VARY, terms
from aiopatterns.gateway.cachestock import Stock, Stored

PAGE = ("http", b"shop", b"/page", b"")
NOW = 1000.0
NONE: Fields = {}


def stored(
    body: bytes = b"x",
    *,
    vary: bytes = b"",
    request: Fields | None = None,
    life: int = 60,
    address=PAGE,
) -> Stored:
    headers = [(b"cache-control", b"max-age=%d" % life), *([(b"vary", vary)] if vary else [])]
    found = terms(200, fields_of(headers), asked={}, personal=False, now=0.0, delay=0.0)
    assert found is not None
    return Stored(
        address, 200, headers, body, terms=found, came_at=NOW, header=(request or NONE).get
    )


def stock(size: int = 1000, weight: int = 1 << 20) -> Stock:
    return Stock(max_size=size, max_bytes=weight)


def body(stock: Stock, request: Fields | None = None, now: float = NOW) -> bytes | None:
    found = stock.find(PAGE, (request or NONE).get, now)
    return None if found is None else found.body


def test_one_answer_for_everybody_until_it_is_over():
    shelf = stock()
    assert body(shelf) is None
    assert shelf.put(stored(b"a"), NONE.get)
    assert body(shelf, {b"accept": b"x"}) == b"a"
    assert body(shelf, now=NOW + 59.9) == b"a"
    assert body(shelf, now=NOW + 60) is None
    assert stored().age(NOW + 5) == 5


def test_answers_by_what_they_vary_with():
    shelf = stock()
    german: Fields = {b"accept-language": b"de"}
    english: Fields = {b"accept-language": b"en"}
    shelf.put(stored(b"de", vary=b"accept-language", request=german), german.get)
    assert body(shelf, german) == b"de"
    assert body(shelf, english) is None
    assert body(shelf) is None
    shelf.put(stored(b"en", vary=b"accept-language", request=english), english.get)
    assert (body(shelf, german), body(shelf, english)) == (b"de", b"en")
    assert shelf.place(PAGE, german.get, NOW) != shelf.place(PAGE, english.get, NOW) != PAGE


def test_an_answer_says_whom_it_serves():
    german: Fields = {b"accept-language": b"de"}
    answer = stored(vary=b"accept-language", request=german)
    assert answer.serves(german.get)
    assert not answer.serves(NONE.get)
    assert stored().serves(german.get)


def test_names_only_become_more():
    shelf = stock()
    both: Fields = {b"a": b"1", b"b": b"2"}
    shelf.put(stored(b"a", vary=b"a", request=both), both.get)
    shelf.put(stored(b"b", vary=b"b", request=both), both.get)
    assert body(shelf, both) == b"b"
    assert body(shelf, {b"a": b"1"}) is None
    shelf.put(stored(b"plain"), NONE.get)
    assert body(shelf, both) == b"b"
    assert body(shelf) == b"plain"
    assert body(shelf, {b"a": b"9"}) is None, "told apart by the same names as the others"


def test_too_many_names_are_not_kept():
    shelf = stock()
    for start in (0, MOST_VARY):
        names = b",".join(b"x%d" % n for n in range(start, start + MOST_VARY))
        assert shelf.put(stored(vary=names), NONE.get) is (start == 0)


def test_forgetting_an_address_forgets_all_its_answers_for_good():
    shelf = stock()
    german: Fields = {b"accept-language": b"de"}
    shelf.put(stored(b"old", vary=b"accept-language", request=german), german.get)
    assert shelf.drop(PAGE)
    assert not shelf.drop(PAGE)
    assert body(shelf, german) is None
    english: Fields = {b"accept-language": b"en"}
    shelf.put(stored(b"en", vary=b"accept-language", request=english), english.get)
    assert body(shelf, german) is None, "the new index leads to no old answer"


def test_a_variant_whose_index_is_evicted_is_gone():
    shelf = stock(size=2)
    german: Fields = {b"accept-language": b"de"}
    shelf.put(stored(b"de", vary=b"accept-language", request=german), german.get)
    for n in range(5):
        shelf.put(stored(address=("http", b"shop", b"/%d" % n, b"")), NONE.get)
    assert body(shelf, german) is None
    assert shelf.evictions


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 3000), st.sampled_from([b"", b"a", b"a,b"])),
        max_size=60,
    )
)
def test_it_never_holds_more_than_it_may(steps):
    shelf = stock(size=8, weight=20_000)
    for n, size, vary in steps:
        request: Fields = {b"a": b"%d" % (size % 3)}
        answer = stored(
            b"x" * size, vary=vary, request=request, address=("http", b"shop", b"/%d" % n, b"q" * n)
        )
        kept = shelf.put(answer, request.get)
        # It may have pushed out its own index.
        assert shelf.find(answer.address, request.get, NOW) in ((answer, None) if kept else (None,))
        assert len(shelf) <= 8
        assert shelf.weight <= 20_000


def test_what_is_too_heavy_is_not_kept():
    shelf = stock(weight=1000)
    assert not shelf.put(stored(b"x" * 1000), NONE.get)
    assert body(shelf) is None
