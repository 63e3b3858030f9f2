"""Forgetting: what an invalidation does in this process, and who is told.

Whether it was asked for here or is a message from another process, it is one synchronous step:
entries go, loads that are under way store nothing of what they bring, and then the callbacks are
called. So no question in between sees the one without the other.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, TypeVar, final

from aiopatterns.cache.rules import matcher
from aiopatterns.core.telemetry import Subscription
from aiopatterns.core.validate import plain_function

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiopatterns.cache.loads import Loads
    from aiopatterns.cache.stock import Stock

__all__ = ["Forgetting"]

K = TypeVar("K")
V = TypeVar("V")


@final
class Forgetting(Generic[K, V]):
    """Invalidations of one cache in this process.

    Args:
        name: The cache's name, for the log.
        stock: Its entries.

    Complexity: O(1) for each key or tag, and the keys that are being loaded for tags and all.
    """

    __slots__ = ("_callbacks", "_name", "_stock", "loads")

    loads: Loads[K, V]  # set by the cache: loads know the far tier, and that knows this

    def __init__(self, name: str, stock: Stock[K, V]) -> None:
        self._name = name
        self._stock = stock
        self._callbacks: tuple[Callable[..., object], ...] = ()

    def forget(self, keys: Sequence[K]) -> None:
        """Forget ``keys``."""
        self._stock.drop(keys)
        self.loads.detach(keys)
        self._tell(*keys)

    def forget_tags(self, tags: Sequence[str]) -> None:
        """Forget what carries one of ``tags``."""
        self._stock.drop_tags(tags)
        self.loads.detach_tags(tags)
        self._tell()

    def forget_matching(self, pattern: str) -> None:
        """Forget the keys that fit a glob, as text. O(entries), 0.4 us each."""
        fits = matcher(pattern)
        self._stock.drop([key for key in self._stock.all_keys() if fits(key)])
        self.loads.detach_matching(fits)
        self._tell()

    def forget_all(self) -> None:
        """Forget everything."""
        self.drop_all()
        self._tell()

    def drop_all(self) -> None:
        """Forget everything, and tell nobody: the cache opens or closes."""
        self._stock.clear()
        self.loads.detach_all()

    def subscribe(self, callback: Callable[..., object]) -> Subscription:
        """Call ``callback`` after each of these, with the keys if they are known."""
        plain_function("callback", callback)
        self._callbacks = (*self._callbacks, callback)
        return Subscription(lambda: self._remove(callback))

    def _remove(self, callback: Callable[..., object]) -> None:
        at = next(at for at, each in enumerate(self._callbacks) if each is callback)
        self._callbacks = (*self._callbacks[:at], *self._callbacks[at + 1 :])

    def _tell(self, *keys: K) -> None:
        """Call the callbacks; their errors are theirs."""
        for callback in self._callbacks:
            try:
                callback(*keys)
            except Exception:
                logging.getLogger("aiopatterns").exception(
                    "a callback on invalidations of the cache %r failed", self._name
                )
