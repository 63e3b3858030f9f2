from __future__ import annotations

from aiopatterns.dashboard.history import POINTS, History
from aiopatterns.dashboard.overview import StreamView
from tests.dashboard.views import overview, queue


def test_nothing_was_seen():
    plots = History().plots()
    assert (plots.at, plots.queues, plots.streams) == ([], {}, {})


def test_series_have_a_value_for_each_moment():
    history = History()
    history.add(overview(1.0, queues=[queue("a", queued=1)]))
    lag = [StreamView("orders", "mail", 7, 1)]
    history.add(overview(2.0, queues=[queue("a", queued=2), queue("b", dead=3)], streams=lag))
    plots = history.plots()
    assert plots.at == [1.0, 2.0]
    assert plots.queues["a"].queued == [1, 2]
    assert plots.queues["b"].dead == [None, 3]
    assert plots.queues["b"].p50 == [None, None]
    assert plots.streams == {"orders/mail": [None, 7]}


def test_ten_minutes_are_kept_of_what_is_still_there():
    history = History()
    history.add(overview(0.0, queues=[queue("gone")]))
    for at in range(POINTS + 5):
        history.add(overview(float(at), queues=[queue("a", running=at)]))
    plots = history.plots()
    assert len(history) == len(plots.at) == POINTS == 600
    assert list(plots.queues) == ["a"]
    assert plots.queues["a"].running[-1] == POINTS + 4
