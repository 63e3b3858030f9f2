"""A load knows what it brings."""

from __future__ import annotations

from aiopatterns.cache.load import ANY, NEW, Load


def test_a_load_of_one_key_and_of_several():
    single: Load[str, int] = Load(["a"], (), stamp=frozenset(), epoch=3, floor=ANY)
    several: Load[str, int] = Load(["a", "b"], ("t",), stamp=frozenset(), epoch=3, floor=NEW)
    assert (single.single, several.single) == (True, False)
    assert (single.key, list(several.live)) == ("a", ["a", "b"])
    assert single.floor < 0 < several.floor
