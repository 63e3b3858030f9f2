"""A load knows what it brings."""

from __future__ import annotations

from aiopatterns.cache.load import ANY, NEW, Load


def test_a_load_of_one_key_and_of_several():
    single: Load[str, int] = Load(["a"], (), stamp=frozenset(), epoch=3, floor=ANY)
    several: Load[str, int] = Load(["a", "b"], ("t",), stamp=frozenset(), epoch=3, floor=NEW)
    assert (single.single, several.single) == (True, False)
    assert (single.key, list(several.live)) == ("a", ["a", "b"])
    assert single.floor < 0 < several.floor


def test_the_error_of_a_load_that_cancelled_itself_names_its_key():
    load: Load[int, int] = Load([7], (), stamp=frozenset(), epoch=0, floor=ANY)
    error = load.aborted()
    assert (error.key, str(error)) == ("7", "the load of '7' cancelled itself")
    assert load.aborted() is not error
