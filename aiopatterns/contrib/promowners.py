"""Figures of owners as gauges, read at each scrape.

==========================  ==================================================================
a figure that is            becomes
==========================  ==================================================================
a number, or True or False  ``aiopatterns_worker_pool_in_flight{name="mails"} 3``
a state                     ``aiopatterns_circuit_breaker_state{name="db", value="open"} 1``
a mapping to numbers        ``aiopatterns_gateway_answers{name="edge", key="200"} 17``, 200
                            keys at most
anything else, or None      nothing
==========================  ==================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, cast, final

from prometheus_client.core import GaugeMetricFamily

from aiopatterns.contrib.promlabels import OTHER, Names
from aiopatterns.core.validate import is_async, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["PREFIX", "OwnerFigures"]

#: What all names of metrics begin with.
PREFIX: Final = "aiopatterns_"
_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@final
class OwnerFigures:
    """A collector of prometheus_client.

    Args:
        owners: Each with ``statistics()`` and a name, or names and what they are of.

    Raises:
        ValueError: Two of one kind have one name.
        TypeError: One has no statistics, or no name.
    """

    __slots__ = ("_owners",)

    def __init__(self, owners: Iterable[object] | Mapping[str, object]) -> None:
        named: Iterable[tuple[object, object]]
        if isinstance(owners, Mapping):
            named = cast("Mapping[str, object]", owners).items()
        else:
            named = [(getattr(each, "name", None), each) for each in owners]
        self._owners: dict[tuple[str, str], Callable[[], object]] = {}
        for name, owner in named:
            key = kind_of(owner), _name(name, owner)
            if key in self._owners:
                msg = f"owners must have names of their own, but two of {key[0]} are {key[1]!r}"
                raise ValueError(msg)
            self._owners[key] = _statistics(owner)

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: which figures there are is known when they are asked for."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the figures of this moment; an owner whose figures cannot be had is left out."""
        families: dict[str, GaugeMetricFamily] = {}
        for (kind, name), statistics in self._owners.items():
            for figure, value in _told(statistics):
                _add(families, f"{PREFIX}{kind}_{figure}", value, name=name)
        yield from families.values()


def kind_of(owner: object) -> str:
    """Return the kind under which an owner is shown: ``worker_pool`` for a ``WorkerPool``."""
    return _CAPITAL.sub("_", type(owner).__name__).lower()


def _name(name: object, owner: object) -> str:
    if not isinstance(name, str):
        msg = f"owners must have a name, or get one by a mapping of names to owners, not {owner!r}"
        raise TypeError(msg)
    return text("owners' names", name)


def _statistics(owner: Any) -> Callable[[], object]:
    asked = getattr(owner, "statistics", None)
    if not callable(asked) or is_async(asked):
        msg = (
            f"owners must have statistics() that answers at once, not {owner!r};"
            " queues of jobs are asked by QueueGauges"
        )
        raise TypeError(msg)
    return cast("Callable[[], object]", asked)


def _told(statistics: Callable[[], object]) -> list[tuple[str, object]]:
    """Return the figures of an owner; none if it has none now, for the scrape is for others too."""
    try:
        return _fields(statistics())
    except Exception:
        return []


def _fields(record: Any) -> list[tuple[str, object]]:
    """Return the fields of a record, whichever kind of record it is."""
    if is_dataclass(record):
        names = [each.name for each in fields(record)]
    else:  # a named tuple, or a struct of msgspec
        names = getattr(record, "_fields", None) or record.__struct_fields__
    return [(name, getattr(record, name)) for name in names]


def _add(families: dict[str, GaugeMetricFamily], metric: str, value: object, *, name: str) -> None:
    """Add one figure to its family, if it can be drawn."""
    if isinstance(value, (bool, int, float)):
        _family(families, metric).add_metric([name], float(value))
    elif isinstance(value, Enum):
        _family(families, metric, "value").add_metric([name, str(value.value)], 1.0)
    elif isinstance(value, Mapping):
        for key, each in _counted(cast("Mapping[object, object]", value)):
            _family(families, metric, "key").add_metric([name, key], each)


def _counted(figures: Mapping[object, object]) -> Iterator[tuple[str, float]]:
    """Return the numbers of a mapping, as many as there may be labels."""
    names = Names()
    for key, value in figures.items():
        label = names.bounded("key", str(key))
        if isinstance(value, (bool, int, float)) and label is not OTHER:
            yield label, float(value)


def _family(families: dict[str, GaugeMetricFamily], metric: str, *more: str) -> GaugeMetricFamily:
    found = families.get(metric)
    if found is None:
        text = f"Figure of {metric.removeprefix(PREFIX)}"
        found = families[metric] = GaugeMetricFamily(metric, text, labels=["name", *more])
    return found
