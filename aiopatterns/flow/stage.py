"""What a stage is: a function, how it is run, and what happens to an item that fails.

The records here are what the verbs of :class:`~aiopatterns.flow.pipeline.Pipeline` write down;
nothing runs yet. For each run they are turned into a chain of nodes that pass items on::

    Stage, Batch, Branches  --assembled for one run-->  Node.push(item) -> Node.push(...) -> output

A failure belongs to the stage whose function raised it. ``on_error`` says what follows:

==================  ===========================================================================
``"stop"``          the run is given up, and the error leaves bare with a note that names the
                    stage and the item
``"skip"``          the item is counted as failed; the others go on
``DeadLetter``      the same, after the sink has taken the item, its error, the stage's name and
                    the number of attempts; a sink that fails stops the run, so no item is lost
==================  ===========================================================================

A function that raises a cancellation nobody asked for, or cancels its own task, has failed as
well: its item is refused by :class:`~aiopatterns.core.errors.JobCancelledError`. The cancellation
of the run is never shown to a policy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, final

from anyio import get_cancelled_exc_class

from aiopatterns.core.errors import JobCancelledError
from aiopatterns.core.notes import note
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.types import as_sink
from aiopatterns.core.validate import (
    async_function,
    function,
    instance,
    is_async,
    optional_count,
    optional_positive,
    plain_function,
    text,
)
from aiopatterns.flow.calls import own_cancellation, own_error
from aiopatterns.flow.executors import Executor, Inline
from aiopatterns.resilience.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from aiopatterns.core.types import Sink
    from aiopatterns.flow.tally import Tally

__all__ = [
    "DeadItem",
    "DeadLetter",
    "ItemFailed",
    "Node",
    "OnError",
    "Spawn",
    "Stage",
    "UserFn",
    "Verb",
    "blame",
    "failure",
    "is_stray_cancel",
    "name_of",
]

UserFn: TypeAlias = "Callable[[Any], Any]"
Verb: TypeAlias = Literal["map", "filter", "flat_map"]
# Starts a task of the run, by its function and its name.
Spawn: TypeAlias = "Callable[[Callable[[], Coroutine[Any, Any, None]], str], object]"


@dataclass(frozen=True, slots=True)
class DeadItem:
    """An item that a stage could not process.

    Args:
        item: The item as it reached the stage.
        error: What its function raised at last.
        stage: Name of the stage.
        attempts: How often the function ran for it.
    """

    item: Any
    error: Exception
    stage: str
    attempts: int


@final
@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The ``on_error`` policy that puts failed items aside and goes on.

    Args:
        sink: Async function of one :class:`DeadItem`, or an object send stream of them. When it
            raises, the run stops with its error: an item is never lost because the place for lost
            items was full.

    Raises:
        TypeError: ``sink`` is neither, or a plain function.
    """

    sink: Sink[DeadItem]

    def __post_init__(self) -> None:
        async_function("sink", as_sink("sink", self.sink))


OnError: TypeAlias = Literal["stop", "skip"] | DeadLetter


@dataclass(frozen=True, slots=True)
class ItemFailed(Event):
    """A stage gave an item up, after its last attempt.

    Args:
        stage: Name of the stage.
        index: Position of the item among those that reached the stage, from 0.
        attempts: How often its function ran.
        error: What it raised at last.
        action: What happened to the item: ``stop``, ``skip`` or ``dead_letter``.
    """

    name: ClassVar[str] = "aiopatterns.pipeline.item_failed"
    level: ClassVar[str] = "warning"
    stage: str
    index: int
    attempts: int
    error: Exception
    action: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One ``map``, ``filter`` or ``flat_map``; its fields are explained there.

    Raises:
        ValueError: A number is out of its range, or ``on_error`` is no known choice.
        TypeError: Something is of the wrong type, or an asynchronous function was given an
            executor that runs synchronous ones only.
    """

    verb: Verb
    fn: UserFn
    name: str
    workers: int | None = None
    key: Callable[[Any], Hashable] | None = None
    ordered: bool = True
    retry: Retry | None = None
    timeout: float | None = None
    on_error: OnError = "stop"
    executor: Executor | None = None

    def __post_init__(self) -> None:
        function("predicate" if self.verb == "filter" else "fn", self.fn)
        text("name", self.name)
        optional_count("workers", self.workers)
        if self.key is not None:
            plain_function("key", self.key)
        instance("ordered", self.ordered, bool, "True or False")
        if self.retry is not None:
            instance("retry", self.retry, Retry, "a Retry or None")
        optional_positive("timeout", self.timeout)
        if not isinstance(self.on_error, DeadLetter):
            _known(self.on_error)
        if self.executor is not None:
            _fits(instance("executor", self.executor, Executor, "an Executor or None"), self.fn)

    @property
    def width(self) -> int:
        """How many items may be in flight at once."""
        if self.workers is not None:
            return self.workers
        return 1 if self.executor is None else self.executor.capacity

    @property
    def serial(self) -> bool:
        """Whether it can run in the task of its neighbours: one at a time, and never again."""
        plain = self.retry is None and self.timeout is None and self.executor is None
        return plain and self.width == 1

    async def refuse(self, item: object, index: int, error: Exception, attempts: int) -> None:
        """Do with a failed item what ``on_error`` says.

        Raises:
            Exception: ``error`` itself, with a note, if the run has to stop; or what the sink of
                the dead letters raised.

        Cancellation: the sink may or may not have taken the item; the run is over.
        """
        action = self.on_error if isinstance(self.on_error, str) else "dead_letter"
        if listening():
            emit(ItemFailed(self.name, index, attempts, error, action))
        if isinstance(self.on_error, DeadLetter):
            dead = DeadItem(item, error, self.name, attempts)
            try:
                await as_sink("sink", self.on_error.sink)(dead)
            except BaseException as broken:
                blame(failure(broken), f"the dead letters of stage {self.name!r}, item {index}")
        elif action == "stop":
            tries = f", attempt {attempts}" if attempts > 1 else ""
            blame(error, f"stage {self.name!r}, item {index}{tries}")


class Node(ABC):
    """A place of one run that items pass: a stage, a batch, a branch, the output.

    ``tally`` counts what is pushed; whoever holds an item that it has yet to push counts it there
    as queued, and takes that back in the step in which it pushes.
    """

    __slots__ = ("tally",)

    tally: Tally

    @abstractmethod
    async def push(self, item: Any) -> None:
        """Take one item, waiting for room; it is counted before the first suspension."""

    @abstractmethod
    async def end(self) -> None:
        """No item will follow: finish what is here, and pass the end on."""

    def start(self, spawn: Spawn) -> None:
        """Start the tasks of this node; called once, before the first item.

        ``spawn`` may be kept, to start more of them later.
        """

    def stop(self) -> None:
        """Disarm the timers of this node; called once, when nothing runs any more."""


def failure(error: BaseException) -> Exception:
    """Return the failure that ``error`` is; call it inside ``except`` only.

    Raises:
        BaseException: ``error`` itself, if it is no failure of an item: a cancellation that was
            asked for, or something like ``KeyboardInterrupt``.
    """
    if isinstance(error, (StopIteration, StopAsyncIteration)):
        # Leaving a coroutine or ``__anext__``, they would end a loop (PEP 479 has the same answer).
        problem: Exception = RuntimeError(f"the function raised {type(error).__name__}")
        problem.__cause__ = error
        return problem
    if isinstance(error, Exception):
        return error
    if own_cancellation(error):
        return own_error("the function", error)
    raise error


def is_stray_cancel(error: Exception) -> bool:
    """Whether ``error`` stands for a cancellation nobody asked for; no policy is shown it."""
    stands_for = isinstance(error, JobCancelledError) and error.__cause__
    return isinstance(stands_for, get_cancelled_exc_class())


def blame(error: Exception, where: str) -> None:
    """Raise ``error`` with a note about where it happened."""
    note(error, f"in {where}")
    raise error


def name_of(fn: object) -> str:
    """Return the name a function goes by in reports."""
    while isinstance(fn, partial):
        fn = fn.func
    return getattr(fn, "__name__", None) or type(fn).__name__


def _known(on_error: object) -> None:
    if on_error not in ("stop", "skip"):
        msg = f"on_error must be 'stop', 'skip' or a DeadLetter, not {on_error!r}"
        raise ValueError(msg) if isinstance(on_error, str) else TypeError(msg)


def _fits(executor: Executor, fn: UserFn) -> None:
    if is_async(fn) and not isinstance(executor, Inline):
        msg = (
            f"executor {executor.name!r} runs synchronous functions, and {name_of(fn)} is "
            "asynchronous; leave the executor out, or use Inline()"
        )
        raise TypeError(msg)
