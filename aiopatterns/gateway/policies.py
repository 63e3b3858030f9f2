"""Policies in a configuration file: what each table means.

::

    timeouts   = { connect = 2, first_byte = 15, idle = 30, total = false }
    retry      = { attempts = 3, initial = 0.025, factor = 2, cap = 5, budget = 0.2 }
    breaker    = { ratio = 0.5, min_calls = 20, window = 10, open_for = 5, probes = 1 }
               = { consecutive = 5, open_for = 5 }
    bulkhead   = 100
    rate_limit = { amount = 100, per = 60, burst = 20 }                      of this process
               = { amount = 100, per = 60, shared = "api", on_outage = "local" }   of all
    cache      = { max_body = 1048576, max_bytes = 67108864 }

``false`` stands for None, and ``true`` for ``retry``, ``breaker`` and ``cache`` as they are by
default.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.core.errors import RejectedError, UpstreamError
from aiopatterns.core.rate import Rate
from aiopatterns.gateway.policy import BreakerRules, HttpCache, RoutePolicy, Timeouts
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.breaktime import BREAK
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.halfopen import HalfOpen
from aiopatterns.resilience.ratelimit import TokenBucket
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.sharedlimit import SharedRateLimit
from aiopatterns.resilience.trip import Consecutive, Seconds, Trip

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.gateway.stock import Stock
    from aiopatterns.gateway.tables import Table
    from aiopatterns.resilience.breaktime import OpenFor
    from aiopatterns.resilience.sharedlimit import OnOutage

__all__ = ["PARTS", "Policies", "fields_of"]

#: The names in a policy's table.
PARTS: Final = ("timeouts", "retry", "breaker", "bulkhead", "rate_limit", "cache")

_RETRY: Final = ("attempts", "initial", "factor", "cap", "budget")
_BREAKER: Final = ("window", "min_calls", "ratio", "consecutive", "open_for", "probes")
_RATE: Final = ("amount", "per")
_LIMIT: Final = ("burst", "shared", "on_outage")


def fields_of(record: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields, which are those in the file."""
    return tuple(each.name for each in fields(record))


@final
class Policies:
    """Makes policies of tables.

    Args:
        stock: Where parts that hold a state are made, or were.
        backend: Where shared limits are counted; None if the file names none.
    """

    __slots__ = ("_backend", "_readers", "_stock")

    def __init__(self, stock: Stock, backend: Backend | None) -> None:
        self._stock = stock
        self._backend = backend
        self._readers: dict[str, Callable[[Table], object]] = {
            "timeouts": _timeouts,
            "retry": partial(_made, _retry, _RETRY),
            "breaker": partial(_made, _breaker, _BREAKER),
            "rate_limit": self._rate_limit,
            "cache": partial(_made, HttpCache, fields_of(HttpCache)),
        }

    def read(self, table: Table, owner: Callable[[str], str]) -> RoutePolicy | None:
        """Return the policy of a table, or None if something is wrong with it.

        Args:
            table: Where it stands.
            owner: Whose a part is; parts of one owner and one text are one object.
        """
        given = {"retry": True} | table.take(*PARTS)  # its budget is shared as that of any other
        table.end()
        parts: dict[str, object] = {}
        for name, value in given.items():
            parts.update(self._part(table, owner(name), name, value))
        policy = table.make(RoutePolicy, parts)
        return policy if len(parts) == len(given) else None

    def _part(self, table: Table, owner: str, name: str, value: object) -> dict[str, object]:
        """Return one part by its name, or nothing if something is wrong with it."""
        if value is False and name != "timeouts":
            return {name: None}
        if value is True and name in {"retry", "breaker", "cache"}:
            value = {}
        if name == "bulkhead":
            return {name: value}
        inner = table.table(name, value)
        if inner is None:
            return {}
        read = partial(self._readers[name], inner)
        part = self._stock.take(f"{owner} {name}", value, read)
        return {} if part is None else {name: part}

    def _rate_limit(self, table: Table) -> object:
        """Read a limit: a rate alone, one that may be saved up, or one shared by all processes."""
        values, more = table.take(*_RATE), table.take(*_LIMIT)
        table.end()
        rate = table.make(Rate, values, amount=1)
        if "shared" in more:
            if self._backend is None:
                table.refuse("shared", "needs a 'backend' at the top of the file to count in")
                return None
            limit = partial(_shared, rate or Rate(1), self._backend)
            made: object = table.make(limit, more, shared="any")
        elif "on_outage" in more:
            table.refuse("on_outage", "is for limits that are 'shared'")
            return None
        else:
            made = table.make(partial(TokenBucket, rate or Rate(1)), more) if more else rate
        return made if rate is not None else None


def _made(make: Callable[..., object], names: tuple[str, ...], table: Table) -> object:
    values = table.take(*names)
    table.end()
    return table.make(make, values)


def _timeouts(table: Table) -> Timeouts | None:
    values = table.take(*fields_of(Timeouts))
    table.end()
    if values.get("total") is False:
        values["total"] = None
    return table.make(Timeouts, values)


def _retry(
    *,
    attempts: int = 3,
    initial: float = 0.025,
    factor: float = 2.0,
    cap: float = 5.0,
    budget: float = 0.2,
) -> Retry:
    return Retry(
        (UpstreamError, RejectedError),
        attempts=attempts,
        backoff=Exponential(initial, factor, cap),
        budget=Budget.tokens(budget),
    )


def _breaker(
    *, consecutive: int | None = None, open_for: OpenFor = BREAK, probes: int = 1, **shares: Any
) -> BreakerRules:
    window = (
        Seconds(shares.pop("window", 10.0)) if consecutive is None else Consecutive(consecutive)
    )
    if "window" in shares:
        raise ValueError("window is for a 'ratio', not for failures in a row")
    return BreakerRules(Trip(window, **shares), open_for, HalfOpen(probes))


def _shared(
    rate: Rate,
    backend: Backend,
    *,
    shared: str,
    burst: float | None = None,
    on_outage: OnOutage = "local",
) -> SharedRateLimit:
    return SharedRateLimit(rate, backend, name=shared, burst=burst, on_outage=on_outage)
