"""Flows as pictures: boxes with a state and arrows, of graphs, pipelines and sagas.

::

    Dag           a picture for each run under way; without one, how the last ended
    PipelineRun   its stages, and what has passed them
    Saga          a picture for each that has not ended, from its store; else its steps

Complexity: O(boxes + arrows). Of a picture with more than 200 boxes the first are shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiopatterns.dashboard.overview import FlowView, NodeView
from aiopatterns.flow.broadcast import Branches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aiopatterns.data.saga import Saga, SagaResult
    from aiopatterns.flow.batching import Batch
    from aiopatterns.flow.dag import Dag
    from aiopatterns.flow.node import TaskState
    from aiopatterns.flow.run import PipelineRun
    from aiopatterns.flow.stage import Stage
    from aiopatterns.flow.tally import StageStatistics

__all__ = ["dag_flows", "pipeline_flows", "saga_flows"]

_MOST_BOXES: Final = 200
# Runs of one graph, and sagas of one name, that are drawn at most.
_MOST_RUNS: Final = 5
_PENDING: Final = "pending"


def dag_flows(dag: Dag) -> list[FlowView]:
    """Return the pictures of a graph of tasks.

    Raises:
        DagError: The graph is none.
    """
    runs = dag.runs[-_MOST_RUNS:]
    if not runs:
        states = {**dict.fromkeys(dag.tasks, _PENDING), **_values(dag.last_states)}
        return [_drawn("dag", dag.name, "", states, dag.graph.edges)]
    several = len(runs) > 1
    return [
        _drawn("dag", dag.name, f"{at}" if several else "", _values(run.states), run.graph.edges)
        for at, run in enumerate(runs, 1)
    ]


def pipeline_flows(run: PipelineRun[Any]) -> list[FlowView]:
    """Return the picture of a pipeline that runs, or has run."""
    report = run.statistics()
    names = ["source", *(f"{at} {each.name}" for at, each in enumerate(report.stages, 1)), "output"]
    edges: list[tuple[str, str]] = []
    ends, _ = _chained(run.plan.stages, names, 1, ["source"], edges)
    edges += [(end, "output") for end in ends]
    labels = [f"source: {report.read}"]
    labels += [f"{each.name}: {each.processed}" for each in report.stages]
    labels += [f"output: {report.output.processed}"]
    over = not run.is_open
    states = ["done" if over else "running"]
    states += [_stage_state(each, over=over) for each in (*report.stages, report.output)]
    nodes = [NodeView(*each) for each in zip(names, states, labels, strict=True)]
    return [_view("pipeline", run.name, "", nodes, edges)]


async def saga_flows(saga: Saga[Any]) -> list[FlowView]:
    """Return the pictures of the sagas that have not ended; 1 read, and 1 for each.

    Raises:
        BackendError: The store does not answer.
        CodecError: A saga there is of another context.
    """
    edges = [(before, step.name) for step in saga.steps.values() for before in step.after]
    flows: list[FlowView] = []
    for listed in await saga.unfinished(limit=_MOST_RUNS):
        found = await saga.find(listed.id)
        if found is not None:
            flows.append(_drawn("saga", saga.name, listed.id, _outcomes(saga, found), edges))
    pending = dict.fromkeys(saga.steps, _PENDING)
    return flows or [_drawn("saga", saga.name, "", pending, edges)]


def _outcomes(saga: Saga[Any], found: SagaResult[Any]) -> dict[str, str]:
    states = dict.fromkeys(saga.steps, _PENDING)
    for each in found.outcomes:
        if each.step in states and each.state is not None:
            states[each.step] = each.state.value
    return states


def _values(states: Mapping[str, TaskState]) -> dict[str, str]:
    return {name: state.value for name, state in states.items()}


def _stage_state(stage: StageStatistics, *, over: bool) -> str:
    if stage.failed:
        return "failed"
    if over:
        return "done"
    return "running" if stage.accepted else _PENDING


def _chained(
    stages: Sequence[Stage | Batch | Branches],
    names: Sequence[str],
    at: int,
    ends: list[str],
    edges: list[tuple[str, str]],
) -> tuple[list[str], int]:
    """Join stages to what comes before; returns their ends, and where the next name is."""
    for stage in stages:
        edges += [(end, names[at]) for end in ends]
        ends, at = [names[at]], at + 1
        if isinstance(stage, Branches):
            begin, ends = ends, []
            for branch in stage.branches:
                found, at = _chained(branch, names, at, begin, edges)
                ends += found
    return ends, at


def _drawn(
    kind: str, name: str, id: str, states: Mapping[str, str], edges: Iterable[tuple[str, str]]
) -> FlowView:
    nodes = [NodeView(each, state, each) for each, state in states.items()]
    return _view(kind, name, id, nodes, edges)


def _view(
    kind: str, name: str, id: str, nodes: list[NodeView], edges: Iterable[tuple[str, str]]
) -> FlowView:
    """Return a picture with no more boxes than can be seen, and the arrows among them."""
    some = nodes[:_MOST_BOXES]
    there = {each.id for each in some}
    return FlowView(kind, name, id, some, [each for each in edges if there.issuperset(each)])
