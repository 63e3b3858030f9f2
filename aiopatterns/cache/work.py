"""How a load brings its values: from the far tier if it has them, else from the loader.

::

    without a far tier    loader --> near
    one key               read far --known--------------------------------> near
                             '-- lead: one load in the fleet --known------> near
                                    '-- loader --> fill far --accepted----> near
    many keys             read far (1 MGET) --known-----------------------> near
                             '-- loader(rest) --> fill far (1 pipeline) --> near

A fill that the far tier refuses (its key was invalidated during the load, or somebody else has
filled it) is not stored near either; its callers get the value all the same, for they asked before
that. While the far tier cannot be reached, the near one goes on alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

from anyio import get_cancelled_exc_class

from aiopatterns.cache.fetched import Filled
from aiopatterns.cache.load import NEW, Failed
from aiopatterns.cache.terms import MISSING
from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiopatterns.cache.fetched import Fetched
    from aiopatterns.cache.load import Found, Load
    from aiopatterns.cache.stock import Stock
    from aiopatterns.cache.terms import Life, Missing
    from aiopatterns.cache.tiers import Far
    from aiopatterns.resilience.timeout import Timeout

__all__ = ["Work"]

K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")
R = TypeVar("R")


@final
class Work(Generic[K, V]):
    """The way from a loader to the tiers, for the loads of one cache.

    Args:
        stock: The near tier.
        far: The far tier, or None.
        hard: The hard time of a loader, or None.
    """

    __slots__ = ("_far", "_hard", "_stock")

    def __init__(self, stock: Stock[K, V], far: Far[Any, V] | None, hard: Timeout | None) -> None:
        self._stock = stock
        self._far = far
        self._hard = hard

    async def one(
        self, load: Load[K, V], key: K, loader: Callable[[K], Awaitable[V]]
    ) -> Found[K, V]:
        """Bring one key; at most one process of the fleet loads it at a time."""
        far = self._far
        if far is None:
            value, cost = await self._one_value(load, loader, key)
            self._settle(load, key, value, self._life(value), cost)
            return {key: value}
        fetched = (await far.read((key,), load.tags))[key]
        if self._takes(load, key, fetched):
            return {key: fetched.value}
        if load.floor == NEW:
            return await self._fetch(far, load, key, loader, fetched)
        turn = await far.lead(key, fetched, tags=load.tags)
        try:
            if self._takes(load, key, turn.fetched):
                return {key: turn.fetched.value}
            return await self._fetch(far, load, key, loader, turn.fetched)
        finally:
            far.finish(turn)

    async def many(
        self, load: Load[K, V], keys: Sequence[K], loader: Callable[[list[K]], Awaitable[object]]
    ) -> Found[K, V]:
        """Bring many keys by one call of the loader for those that the far tier does not know."""
        fetched: dict[K, Fetched[V]] = {}
        if self._far is not None:
            fetched = await self._far.read(keys, load.tags)
        known = {key for key, each in fetched.items() if self._takes(load, key, each)}
        found: Found[K, V] = {key: fetched[key].value for key in known}
        rest = [key for key in keys if key not in known]
        if not rest:
            return found
        answer, cost = await self._call(load, loader, rest)
        loaded = _answered(rest, answer)
        values = {key: each for key, each in loaded.items() if not isinstance(each, Failed)}
        lives = {key: self._life(each) for key, each in values.items()}
        refused = await self._fill(load, fetched, values, lives, cost)
        for key, value in values.items():
            self._settle(load, key, value, lives[key], cost, stored=key not in refused)
        return {**found, **loaded}

    async def peek(self, far: Far[Any, V], key: K) -> V | Missing:
        """Return what the far tier has, and store it near if nobody was faster."""
        epoch = self._stock.epoch
        fetched = (await far.read((key,)))[key]
        entry = self._stock.look(key)
        slower = entry is not None and entry.value is not MISSING
        if fetched.known and epoch == self._stock.epoch and not slower:
            self._stock.adopt(key, fetched, epoch=epoch)
        return fetched.value if fetched.known else MISSING

    async def _fetch(
        self,
        far: Far[Any, V],
        load: Load[K, V],
        key: K,
        loader: Callable[[K], Awaitable[V]],
        fetched: Fetched[V],
    ) -> Found[K, V]:
        """Ask the loader for one key, and fill both tiers."""
        value, cost = await self._one_value(load, loader, key)
        life, stored = self._life(value), True
        if life is not None and key in load.live:
            seen, tags = fetched.seen, load.tags
            result = await far.fill(key, seen, value, life, cost=cost, tags=tags)
            stored = result != "refused"
        self._settle(load, key, value, life, cost, stored=stored)
        return {key: value}

    async def _fill(
        self,
        load: Load[K, V],
        fetched: Mapping[K, Fetched[V]],
        values: Mapping[K, V | Missing],
        lives: Mapping[K, Life | None],
        cost: float,
    ) -> set[K]:
        """Fill the far tier with what is still wanted; return the keys that it refused."""
        if self._far is None:
            return set()
        fills = [
            Filled[Any, V](key, fetched[key].seen, value, life, cost, load.tags)
            for key, value in values.items()
            if (life := lives[key]) is not None and key in load.live
        ]
        if not fills:
            return set()
        results = await self._far.fill_many(fills)
        return {
            fill.key for fill, result in zip(fills, results, strict=True) if result == "refused"
        }

    async def _one_value(
        self, load: Load[K, V], loader: Callable[[K], Awaitable[V]], key: K
    ) -> tuple[V, float]:
        """Call the loader of one key.

        Raises:
            TypeError: It returned MISSING, such as the ``get`` of another cache does: callers would
                ask it again for ever.
        """
        value, cost = await self._call(load, loader, key)
        if value is MISSING:
            msg = "a loader must return a value, or None if there is none, not MISSING"
            raise TypeError(msg)
        return value, cost

    async def _call(
        self, load: Load[K, V], loader: Callable[[A], Awaitable[R]], asked: A
    ) -> tuple[R, float]:
        """Call the loader within its hard time; return what it gives and how long it took."""
        self._stock.loads += 1
        began = monotonic()
        try:
            if self._hard is None:
                value = await loader(asked)
            else:
                with self._hard.scope():
                    value = await loader(asked)
        except get_cancelled_exc_class():
            if load.flight.open:  # nobody has cancelled it but itself
                raise load.aborted() from None
            raise
        return value, monotonic() - began

    def _takes(self, load: Load[K, V], key: K, fetched: Fetched[V]) -> bool:
        """Store near what the far tier knows, if that is new enough for this load."""
        if not fetched.known or (fetched.life.fresh_until <= load.floor):
            return False
        if fetched.value is MISSING and load.single:
            return False
        if key in load.live:
            self._stock.adopt(key, fetched, epoch=load.epoch)
        return True

    def _life(self, value: V | Missing) -> Life | None:
        return self._stock.ttl.life(value, monotonic())

    def _settle(
        self,
        load: Load[K, V],
        key: K,
        value: V | Missing,
        life: Life | None,
        cost: float,
        *,
        stored: bool = True,
    ) -> None:
        """Store near what is still wanted and was not refused."""
        if key not in load.live or not stored:
            self._stock.rejected += 1
            return
        self._stock.put(key, value, life, cost=cost, stamp=load.stamp)


def _answered(keys: Sequence[K], answer: object) -> Found[K, Any]:
    """Return the answer of a batch loader for each of ``keys``.

    Raises:
        TypeError: It is no mapping.
    """
    if not isinstance(answer, Mapping):
        msg = f"a batch loader must return a mapping of keys to values, not {answer!r}"
        raise TypeError(msg)
    given = cast("Mapping[K, Any]", answer)
    found: Found[K, Any] = {}
    for key in keys:
        value = given.get(key, MISSING)
        found[key] = Failed(value) if isinstance(value, Exception) else value
    return found
