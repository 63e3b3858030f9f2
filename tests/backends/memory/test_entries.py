from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends.memory.entries import START, Entries


def test_ids_grow_also_if_time_does_not():
    entries = Entries()
    found = [entries.append(b"", each) for each in (5, 5, 4, 6, 0)]
    assert found == [(5, 0), (5, 1), (5, 2), (6, 0), (6, 1)]
    assert entries.last == (6, 1)
    assert Entries().append(b"", 0) == (0, 1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("trim"), st.integers(0, 10)),
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 30), st.integers(0, 5))
def test_it_is_a_sorted_mapping(steps, place, limit):
    entries, model, keys = Entries(), dict[tuple[int, int], bytes](), [START]
    for verb, number in steps:
        if verb == "append":
            key = entries.append(b"%d" % len(keys), number)
            assert key > keys[-1]
            model[key] = b"%d" % len(keys)
            keys.append(key)
        elif verb == "remove":
            key = keys[number % len(keys)]
            entries.remove(key)
            model.pop(key, None)
        else:
            kept = list(model)[max(0, len(model) - number) :]
            assert entries.trim(number) == len(model) - len(kept)
            model = {each: model[each] for each in kept}
        after = keys[place % len(keys)]
        expected = [each for each in model.items() if each[0] > after]
        assert list(islice(entries.after(after), limit)) == expected[:limit]
        assert entries.count_after(after) == len(expected)
        assert entries.get(after) == model.get(after)
        assert len(entries) == len(model)


def test_a_log_that_is_worked_off_stays_small():
    entries = Entries()
    waiting: list[tuple[int, int]] = []
    for number in range(20_000):
        waiting.append(entries.append(b"", number))
        if len(waiting) > 10:
            entries.remove(waiting.pop(0))
    assert len(entries) == 10
    assert len(entries._keys) < 200
    for number in range(20_000):
        entries.append(b"", number)
        entries.trim(10)
    assert len(entries._keys) < 200


def test_holes_behind_an_old_entry_are_swept_as_well():
    entries = Entries()
    entries.append(b"old", 0)
    for number in range(20_000):
        entries.remove(entries.append(b"", number))
    assert list(entries.after(START)) == [((0, 1), b"old")]
    assert len(entries._keys) < 200
