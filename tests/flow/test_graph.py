"""The pure graph: order, heights, paths and cycles, against graphlib."""

from __future__ import annotations

import graphlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.errors import CycleError
from aiopatterns.flow.graph import Graph

DIAMOND = {"load": ["clean", "audit"], "extract": [], "clean": ["extract"], "audit": ["extract"]}


def test_order_and_heights():
    graph = Graph(DIAMOND)
    assert graph.order() == ["extract", "clean", "audit", "load"]
    assert graph.heights() == {"load": 1, "audit": 2, "clean": 2, "extract": 3}
    assert list(graph.before("load")) == ["clean", "audit"]
    assert list(graph.after("extract")) == ["clean", "audit"]
    assert len(graph) == 4
    assert set(graph.edges) == {
        ("extract", "clean"),
        ("extract", "audit"),
        ("clean", "load"),
        ("audit", "load"),
    }


def test_paths():
    graph = Graph(DIAMOND)
    assert graph.path("extract", "load") == ["extract", "clean", "load"]
    assert graph.path("load", "extract") is None
    graph.add("report")
    graph.connect("load", "report")
    assert graph.path("extract", "report") == ["extract", "clean", "load", "report"]
    assert graph.path("load", "load") == ["load"]


def test_a_copy_is_its_own():
    graph = Graph(DIAMOND)
    twin = graph.copy()
    twin.add("report")
    twin.connect("load", "report")
    assert len(graph) == 4
    assert not graph.after("load")
    assert twin.order()[-1] == "report"


def test_cycles_are_told_with_their_path():
    graph = Graph({"a": ["c"], "b": ["a"], "c": ["b"], "d": ["c"], "e": []})
    with pytest.raises(CycleError, match="a -> b -> c -> a") as caught:
        graph.order()
    assert caught.value.path == ("a", "b", "c", "a")
    with pytest.raises(CycleError):
        graph.heights()
    with pytest.raises(CycleError, match="x -> x"):
        Graph({"x": ["x"]}).order()


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, n - 1), max_size=3), min_size=n, max_size=n)
    )
)
def test_against_graphlib(edges):
    named = {str(node): [str(each) for each in before] for node, before in enumerate(edges)}
    graph = Graph(named)
    try:
        list(graphlib.TopologicalSorter(named).static_order())
    except graphlib.CycleError:
        with pytest.raises(CycleError) as caught:
            graph.order()
        path = caught.value.path
        assert path[0] == path[-1]
        for first, then in pairwise(path):
            assert first in named[then]
        return
    order = graph.order()
    assert sorted(order) == sorted(named)
    heights = graph.heights()
    for node, before in named.items():
        for each in before:
            assert order.index(each) < order.index(node)
            assert heights[each] > heights[node]
            assert graph.path(each, node) is not None
            assert graph.path(node, each) is None


def test_a_long_chain_needs_no_recursion():
    n = 20_000
    chain = {str(i): [str(i - 1)] if i else [] for i in range(n)}
    assert Graph(chain).heights()["0"] == n
    chain["0"] = [str(n - 1)]
    with pytest.raises(CycleError) as caught:
        Graph(chain).order()
    assert len(caught.value.path) == n + 1
