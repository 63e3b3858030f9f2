"""Pipelines: a chain of stages, each with its own concurrency, order and rules for failures.

Data has to be parsed, looked up, resized, grouped and stored; each step wants another number of
workers, and the whole must neither fill memory nor lose an item. A pipeline is written as a chain
and says nothing about queues or tasks::

    report = await (
        Pipeline(lines)
        .map(parse, on_error=DeadLetter(save_bad))      one at a time, fused with the next
        .filter(is_wanted)
        .map(enrich, key=by_user, workers=8)            eight at once, each user in order
        .map(resize, executor=Processes(2))             on two processors
        .batch(100, within=0.2)
        .map(store, workers=2, ordered=False)           as they come
        .run()
    )

A pipeline is immutable: every verb returns a new one, so a common beginning can be shared, and
nothing runs until :meth:`Pipeline.run` or :meth:`Pipeline.open`.

Guarantees:

* Order is kept, whatever the concurrency, unless a stage says ``ordered=False`` or the pipeline
  branches.
* Back-pressure from end to end: a boundary holds at most ``capacity`` items besides those its
  workers have, and a slow end stops the reading of the source.
* Nothing is lost: every item is accounted for at every instant (see
  :mod:`aiopatterns.flow.tally`), and a failing dead-letter sink stops the run.
* No task outlives ``run`` or the block of ``open``. The error that stopped a run leaves bare, with
  a note that names the stage and the item.
* Functions see the context variables that were in force where ``run`` was called or ``open`` was
  entered; what they set themselves reaches no other item.

Not guaranteed: durability. Items live in this process; what must survive it belongs into a job
queue or a stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final, overload

from aiopatterns.core.validate import count, function, instance, text
from aiopatterns.flow.batching import Batch
from aiopatterns.flow.broadcast import Branches
from aiopatterns.flow.run import PipelineRun, Plan
from aiopatterns.flow.stage import Stage, name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from aiopatterns.core.types import Sink, Source
    from aiopatterns.flow.executors import Executor
    from aiopatterns.flow.stage import OnError
    from aiopatterns.flow.tally import PipelineReport
    from aiopatterns.resilience.retry import Retry

__all__ = ["Pipeline"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")

# Enough to keep workers busy over a turn of the loop, little enough to keep memory flat.
_CAPACITY: Final = 100


@final
class Pipeline(Generic[T_co]):
    """A chain of stages over a source; immutable.

    Args:
        source: An iterable, an async iterable or an object receive stream. A pipeline over a list
            can be run again; one over a generator only once, because a generator is used up. A
            generator is closed when the run ends; a stream stays its owner's.
        capacity: Most items that wait at each boundary, besides those that its workers have; 1 or
            more.
        name: How reports, notes and errors call it.

    Raises:
        TypeError: ``source`` is none of the three, or an argument is of the wrong type.
        ValueError: ``capacity`` is below 1, or ``name`` is empty.

    Complexity: a boundary costs about 1.5 us an item, a fused stage about 0.25 us; memory is
    O(boundaries x capacity).

    Source: fusion after Akka Streams, per-key order after its ``mapAsyncPartitioned``, error
    policies after Broadway.

    Example::

        report = await Pipeline(urls).map(fetch, workers=8).map(parse).run(into=save)
        print(report.delivered, report.stages[0].p99)
    """

    __slots__ = ("_plan",)

    def __init__(self, source: Source[T_co], *, capacity: int = _CAPACITY, name: str = "pipeline"):
        allowed = "an iterable, an async iterable or an object receive stream"
        instance("source", source, (Iterable, AsyncIterable), allowed)
        self._plan = Plan(
            source=source, capacity=count("capacity", capacity), name=text("name", name)
        )

    # -- stages

    @overload
    def map(
        self,
        fn: Callable[[T_co], Awaitable[U]],
        *,
        workers: int | None = ...,
        key: Callable[[T_co], Hashable] | None = ...,
        ordered: bool = ...,
        retry: Retry | None = ...,
        timeout: float | None = ...,
        on_error: OnError = ...,
        executor: Executor | None = ...,
    ) -> Pipeline[U]: ...

    @overload
    def map(
        self,
        fn: Callable[[T_co], U],
        *,
        workers: int | None = ...,
        key: Callable[[T_co], Hashable] | None = ...,
        ordered: bool = ...,
        retry: Retry | None = ...,
        timeout: float | None = ...,
        on_error: OnError = ...,
        executor: Executor | None = ...,
    ) -> Pipeline[U]: ...

    def map(
        self,
        fn: Callable[[T_co], Any],
        *,
        workers: int | None = None,
        key: Callable[[T_co], Hashable] | None = None,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_error: OnError = "stop",
        executor: Executor | None = None,
    ) -> Pipeline[Any]:
        """Pass each item through a function.

        With one worker and without ``retry``, ``timeout`` and ``executor`` the stage is fused with
        its neighbours; see :mod:`aiopatterns.flow.fusion`.

        Args:
            fn: Function of one item, synchronous or not. A synchronous one runs on the loop and
                blocks it, unless ``executor`` is given.
            workers: How many calls may run at once, 1 or more; None is the capacity of the
                executor, and 1 without one.
            key: Function of an item. Items of equal key run one at a time, in the order of the
                input; others overtake them.
            ordered: Whether results keep the order of the input; else they go on as they are
                ready. Items of equal key keep their order in any case.
            retry: When to try an item again. An item that waits for its retry holds no worker.
            timeout: Seconds for one attempt; it cannot stop a synchronous function on the loop.
            on_error: What follows when an item has failed for good: ``"stop"``, ``"skip"``, or
                :class:`~aiopatterns.flow.stage.DeadLetter`.
            executor: Where to run ``fn``, for example ``Processes(2)``; opened for the run, and
                closed with it, unless it is open already: open it around runs that share it at
                one time. Short calls share messages.

        Returns:
            A new pipeline, of what ``fn`` returns.

        Raises:
            ValueError: A number is out of its range, or ``on_error`` is no known choice.
            TypeError: An argument is of the wrong type.
        """
        stage = Stage(
            verb="map",
            fn=fn,
            name=name_of(fn),
            workers=workers,
            key=key,
            ordered=ordered,
            retry=retry,
            timeout=timeout,
            on_error=on_error,
            executor=executor,
        )
        return self._then(stage)

    def filter(
        self,
        predicate: Callable[[T_co], object],
        *,
        workers: int | None = None,
        key: Callable[[T_co], Hashable] | None = None,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_error: OnError = "stop",
        executor: Executor | None = None,
    ) -> Pipeline[T_co]:
        """Keep the items for which a function gives something true.

        Args:
            predicate: Function of one item, synchronous or not.
            workers: As for :meth:`map`, like all that follow.
            key: See there.
            ordered: See there.
            retry: See there.
            timeout: See there.
            on_error: See there.
            executor: See there.

        Returns:
            A new pipeline, of the items that are kept; the others count as processed here.

        Raises:
            ValueError: As for :meth:`map`.
            TypeError: As for :meth:`map`.
        """
        stage = Stage(
            verb="filter",
            fn=predicate,
            name=name_of(predicate),
            workers=workers,
            key=key,
            ordered=ordered,
            retry=retry,
            timeout=timeout,
            on_error=on_error,
            executor=executor,
        )
        return self._then(stage)

    def flat_map(
        self,
        fn: Callable[[T_co], Iterable[U] | AsyncIterable[U] | Awaitable[Iterable[U]]],
        *,
        workers: int | None = None,
        key: Callable[[T_co], Hashable] | None = None,
        ordered: bool = True,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_error: OnError = "stop",
        executor: Executor | None = None,
    ) -> Pipeline[U]:
        """Pass on each of the things that a function gives for an item.

        Fused, outputs are passed on one by one, so there may be any number of them; an item that
        fails half-way has passed on what came before. With workers, a retry, a timeout or an
        executor the outputs of an item are collected first, and go on only if all of them came.

        Args:
            fn: Function of one item that gives an iterable or an async iterable: a plain, an
                async or a generator function.
            workers: As for :meth:`map`, like all that follow.
            key: See there.
            ordered: See there.
            retry: See there.
            timeout: See there.
            on_error: See there.
            executor: See there.

        Returns:
            A new pipeline, of the outputs.

        Raises:
            ValueError: As for :meth:`map`.
            TypeError: As for :meth:`map`.
        """
        stage = Stage(
            verb="flat_map",
            fn=fn,
            name=name_of(fn),
            workers=workers,
            key=key,
            ordered=ordered,
            retry=retry,
            timeout=timeout,
            on_error=on_error,
            executor=executor,
        )
        return self._then(stage)

    def batch(self, size: int, *, within: float | None = None) -> Pipeline[list[T_co]]:
        """Collect items into lists.

        Args:
            size: Most items of a list, 1 or more.
            within: Seconds from the first item of a list until it goes on, full or not; None
                waits until it is full or the input ends.

        Returns:
            A new pipeline, of non-empty lists.

        Raises:
            ValueError: A number is out of its range.
            TypeError: A number is of the wrong type.
        """
        return self._then(Batch(size=size, within=within))

    def broadcast(self, *branches: Callable[[Pipeline[T_co]], Pipeline[U]]) -> Pipeline[U]:
        """Send every item through each of several branches, and merge what they give.

        Args:
            branches: Functions that add stages to the pipeline they are given and return it. Each
                branch gets every item (the same object, not a copy).

        Returns:
            A new pipeline, of the results of all branches; in order within one branch, in no order
            between them.

        Raises:
            ValueError: There is no branch, or one returned another pipeline than its own.
            TypeError: A branch is no function, or returned no pipeline.

        Example::

            both = Pipeline(orders).broadcast(
                lambda orders: orders.map(invoice),
                lambda orders: orders.filter(is_large).map(notify),
            )
        """
        if not branches:
            msg = "branches must be at least one function of a pipeline, not none"
            raise ValueError(msg)
        return self._then(Branches(branches=tuple(self._branch(each) for each in branches)))

    def named(self, name: str) -> Pipeline[T_co]:
        """Give the last stage another name than that of its function.

        Args:
            name: The name for reports, notes and errors.

        Raises:
            ValueError: There is no stage yet, or ``name`` is empty.
            TypeError: ``name`` is no string.
        """
        if not self._plan.stages:
            msg = "named() names the last stage, and there is none yet; use Pipeline(..., name=)"
            raise ValueError(msg)
        *before, last = self._plan.stages
        return self._with((*before, replace(last, name=text("name", name))))

    # -- running

    async def run(self, into: Sink[T_co] | None = None) -> PipelineReport:
        """Run the pipeline to the end of its source.

        Args:
            into: Where results go: an async function of one result, or an object send stream. It
                is called for one result at a time; the stream is not closed.

        Returns:
            The figures of the run, for each stage and in total.

        Raises:
            Exception: What stopped the run, bare.
            TypeError: ``into`` is no sink.

        Cancellation: all tasks are cancelled and awaited; nothing is left behind.
        """
        run = PipelineRun[T_co](self._plan, into=into, reads=False)
        async with run:
            await run.finished()
        return run.statistics()

    def open(self) -> PipelineRun[T_co]:
        """Run the pipeline while its results are read.

        Returns:
            ``async with pipeline.open() as results: async for result in results: ...``. It has
            ``statistics()`` at any time. Leaving the block early cancels the run and awaits its
            tasks.
        """
        return PipelineRun(self._plan)

    # -- looking at it

    def to_mermaid(self) -> str:
        """Return the pipeline as a Mermaid flowchart."""
        chart = _Flowchart(self._plan.name)
        end = chart.chain(self._plan.stages, ["source"])
        return chart.finish(end)

    def __repr__(self) -> str:
        stages = "".join(f".{_verb(stage)}({stage.name})" for stage in self._plan.stages)
        return f"<Pipeline {self._plan.name!r}{stages}>"

    # -- private core

    def _then(self, stage: Stage | Batch | Branches) -> Pipeline[Any]:
        return self._with((*self._plan.stages, stage))

    def _with(self, stages: tuple[Stage | Batch | Branches, ...]) -> Pipeline[Any]:
        plan = self._plan
        extended = Pipeline[Any](plan.source, capacity=plan.capacity, name=plan.name)
        extended._plan = replace(plan, stages=stages)
        return extended

    def _branch(self, branch: Callable[[Pipeline[T_co]], Pipeline[U]]) -> tuple[Any, ...]:
        """Return the stages that a branch adds."""
        function("branches", branch)
        upstream: tuple[T_co, ...] = _Upstream()
        return self._added(branch(Pipeline(upstream, name=self._plan.name)), upstream)

    def _added(self, added: Pipeline[Any], upstream: tuple[T_co, ...]) -> tuple[Any, ...]:
        if not isinstance(added, Pipeline):
            msg = f"a branch must return the pipeline it was given, extended, not {added!r}"
            raise TypeError(msg)
        if added._plan.source is not upstream:
            msg = f"a branch must extend the pipeline it was given; {added!r} is another one"
            raise ValueError(msg)
        return added._plan.stages


class _Upstream(tuple[Any, ...]):
    """Stands for the source of a branch; each instance is one of a kind."""

    __slots__ = ()


@final
class _Flowchart:
    """Draws stages as boxes, in the order in which items pass them."""

    __slots__ = ("_boxes", "_lines")

    def __init__(self, name: str) -> None:
        self._boxes = 0
        self._lines = ["flowchart LR", f'    source(["{_quoted(name)}"])']

    def chain(self, stages: tuple[Stage | Batch | Branches, ...], ends: list[str]) -> list[str]:
        """Draw ``stages`` behind the boxes ``ends``; returns the boxes at their end."""
        for stage in stages:
            ends = [self._box(_label(stage), ends)]
            if isinstance(stage, Branches):
                ends = [end for each in stage.branches for end in self.chain(each, ends)]
        return ends

    def finish(self, ends: list[str]) -> str:
        """Draw the output and return the chart."""
        self._lines.append('    output(["output"])')
        self._lines += [f"    {end} --> output" for end in ends]
        return "\n".join(self._lines) + "\n"

    def _box(self, label: str, ends: list[str]) -> str:
        self._boxes += 1
        box = f"s{self._boxes}"
        self._lines.append(f'    {box}["{label}"]')
        self._lines += [f"    {end} --> {box}" for end in ends]
        return box


def _verb(stage: Stage | Batch | Branches) -> str:
    return stage.verb if isinstance(stage, Stage) else type(stage).__name__.lower()


def _label(stage: Stage | Batch | Branches) -> str:
    """Say what a stage is, in the words of its verb."""
    label = _quoted(stage.name)
    if isinstance(stage, Batch):
        within = "" if stage.within is None else f", {stage.within:g} s"
        return f"{label} ({stage.size}{within})"
    if isinstance(stage, Stage) and stage.width > 1:
        return f"{label} x{stage.width}"
    return label


def _quoted(label: str) -> str:
    return label.replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
