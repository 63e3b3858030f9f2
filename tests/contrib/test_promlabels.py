"""Labels of bounded number."""

from __future__ import annotations

from aiopatterns.contrib.promlabels import MAX_NAMES, OTHER, Names


def test_each_label_has_room_of_its_own():
    names = Names()
    first = [names.bounded("queue", str(each)) for each in range(MAX_NAMES + 5)]
    assert first[:MAX_NAMES] == [str(each) for each in range(MAX_NAMES)]
    assert first[MAX_NAMES:] == [OTHER] * 5
    assert names.bounded("queue", "7") == "7"  # known before
    assert names.bounded("job", "new") == "new"
    assert Names().bounded("queue", "new") == "new"
