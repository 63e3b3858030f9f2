"""Owners: objects that have background work, and one way to run it.

An owner is made anywhere, also at module level: its constructor does no I/O and needs no running
loop. ``async with owner:`` runs it. Inside, all its tasks live in one task group, so none can
outlive the block::

              async with                leaving normally
    CREATED ------------> RUNNING -------------------------> DRAINING ---> STOPPED
       ^                     |   leaving by error or cancel                   |  async with
       |                     `--------------> STOPPED  <---------------------'   (again, also
       `----- any use: ClosedError                                                on a new loop)

* Leaving normally *drains*: what was accepted is finished.
* Leaving by an error or a cancellation *abandons*: tasks are cancelled and awaited, and every
  handle is settled, in a synchronous step that cannot be interrupted.
* The body's own exception leaves bare and identical. A background task that fails cancels the
  body, and its error leaves bare if it is the only one.

Subclasses implement :meth:`Lifecycle._start`, :meth:`Lifecycle._drain` and
:meth:`Lifecycle._settle`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, NoReturn

from anyio import create_task_group

from aiopatterns.core.errors import ClosedError
from aiopatterns.core.notes import note
from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

__all__ = ["Lifecycle", "Owner", "OwnerState", "raise_bare"]


class OwnerState(Enum):
    """Where an owner is in its life."""

    CREATED = "created"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class Lifecycle(ABC):
    """What an :class:`Owner` is, without the name ``state``, for those that mean another state.

    Args:
        name: How statistics, events and errors call this owner.

    Raises:
        RuntimeError: ``async with`` on an owner that is open already.
        ClosedError: A method that needs the background work is used while it does not run.
    """

    __slots__ = ("__weakref__", "_group", "_state", "name")

    def __init__(self, name: str) -> None:
        self.name: str = text("name", name)
        self._group: TaskGroup | None = None
        self._state = OwnerState.CREATED

    @property
    def is_open(self) -> bool:
        """Whether it is inside its ``async with`` block."""
        return self._group is not None

    @abstractmethod
    def statistics(self) -> object:
        """Return a frozen record of this owner's figures; cheap, callable at any time."""

    async def __aenter__(self) -> Self:
        """Start the background work.

        Raises:
            RuntimeError: This owner is open already.
        """
        if self._group is not None:
            msg = f"{type(self).__name__} {self.name!r} is open already; enter it only once"
            raise RuntimeError(msg)
        group = create_task_group()
        await group.__aenter__()  # does not wait: nobody enters in between
        self._group = group
        self._state = OwnerState.RUNNING
        try:
            await self._start(group)
        except BaseException as error:
            await self._leave(group, error)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drain if the block ended normally, else abandon; no task is left either way."""
        group = self._open_group()
        if exc is None:
            self._state = OwnerState.DRAINING
            try:
                await self._drain()
            except BaseException as error:
                await self._leave(group, error)
                raise
        await self._leave(group, exc)

    def __del__(self) -> None:
        """Warn about an owner that was entered and never left."""
        if getattr(self, "_group", None) is not None:
            warnings.warn(
                f"{type(self).__name__} {self.name!r} was never closed; use 'async with'",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )

    async def _start(self, tasks: TaskGroup) -> None:
        """Start background tasks in ``tasks``; the owner counts as running already."""

    async def _drain(self) -> None:
        """Finish what was accepted; called when the block ends normally."""

    def _settle(self) -> None:
        """Settle every handle that is still open; synchronous, called exactly once per run."""

    def _open_group(self) -> TaskGroup:
        """Return the running task group, or teach how to open this owner.

        Raises:
            ClosedError: This owner is not open.
        """
        if self._group is None:
            raise self._unopened()
        return self._group

    def _unopened(self) -> ClosedError:
        """Return the error that teaches how to open this owner."""
        kind = type(self).__name__
        return ClosedError(
            f"{kind} {self.name!r} is not open; use it inside "
            f"'async with {kind}(...) as {kind.lower()}:'"
        )

    async def _leave(self, group: TaskGroup, cause: BaseException | None) -> None:
        """Cancel and await the tasks, settle the handles, let one error out bare."""
        group.cancel_scope.cancel()
        try:
            await group.__aexit__(
                None if cause is None else type(cause),
                cause,
                None if cause is None else cause.__traceback__,
            )
        except BaseExceptionGroup as errors:
            raise_bare(errors, cause)
        except BaseException as error:
            # Raised anew, the block's own error would be made its own context by an exit stack
            # around this owner, and whoever walks up contexts would never come to an end.
            if error is not cause:
                raise
        finally:
            self._state = OwnerState.STOPPED
            self._group = None
            self._settle()


class Owner(Lifecycle):
    """Base of everything that runs background tasks between ``async with`` and its end.

    Args:
        name: How statistics, events and errors call this owner.

    Raises:
        RuntimeError: ``async with`` on an owner that is open already.
        ClosedError: A method that needs the background work is used while it does not run.
    """

    __slots__ = ()

    @property
    def state(self) -> OwnerState:
        """Where this owner is in its life."""
        return self._state


def raise_bare(
    errors: BaseExceptionGroup[BaseException], cause: BaseException | None = None
) -> None:
    """Raise what the tasks of a group raised, bare if it is one error; called while handling it.

    Args:
        errors: What the group came to.
        cause: The body's own error; if it is among them, the others become notes on it and this
            returns.
    """
    others = [each for each in errors.exceptions if each is not cause]
    if cause is not None and len(others) < len(errors.exceptions):
        for other in others:
            note(cause, f"a background task failed as well: {other!r}")
        return
    if len(others) == 1:
        _raise_as_it_is(others[0])
    raise errors from None


def _raise_as_it_is(error: BaseException) -> NoReturn:
    """Raise ``error`` from inside a handler without making it the consequence of another."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
