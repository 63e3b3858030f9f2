"""What opens by itself when it is used, and is closed at the end of a block or by ``aclose``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Closing"]


class Closing(ABC):
    """A base: ``async with`` closes it, and it may be used again after that."""

    __slots__ = ()

    @abstractmethod
    async def aclose(self) -> None:
        """Close what is open; the next use opens it again."""

    async def __aenter__(self) -> Self:
        """Return this; nothing is opened yet."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close what is open."""
        await self.aclose()
