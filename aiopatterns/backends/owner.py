"""BackendOwner: an owner that has a backend open while it runs.

::

    async with owner:      backend opens -> tasks start
                           ...
                           tasks end     -> what was borrowed goes back -> backend closes

Backends count who has them open, so owners may share one, and one that somebody has open already
stays open.

Guarantees: a backend that was opened is closed, also if the start fails or anything is cancelled.

Not guaranteed: that what was borrowed goes back if a native cancellation strikes just then; a cancel
scope waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import CancelScope

from aiopatterns.core.lifecycle import Owner

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.protocols import Backend

__all__ = ["BackendOwner"]


class BackendOwner(Owner):
    """Base of owners that open their backend, and close it; subclasses have a slot for it.

    Attributes:
        backend: Where the state is; set by the constructor of the subclass.
    """

    __slots__ = ()

    backend: Backend

    async def __aenter__(self) -> Self:
        """Open the backend, then start the background work.

        Raises:
            BackendUnavailableError: Nobody answers.
            RuntimeError: This owner is open already.
        """
        await self.backend.__aenter__()
        try:
            return await super().__aenter__()
        except BaseException:
            await self._close_backend()
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drain or abandon, then close the backend, unless somebody else has it open."""
        try:
            await super().__aexit__(exc_type, exc, traceback)
        finally:
            await self._close_backend()

    async def _give_back(self) -> None:
        """Give back what was borrowed of the backend; called before it closes, shielded."""

    async def _close_backend(self) -> None:
        with CancelScope(shield=True):
            try:
                if not self.is_open:  # it is, if somebody has tried to enter it twice
                    await self._give_back()
            finally:
                await self.backend.__aexit__(None, None, None)
