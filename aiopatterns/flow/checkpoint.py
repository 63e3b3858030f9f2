"""What a run of a graph leaves behind, so that the next one need not do it again.

Every finished task is stored under a key that is made of the graph's name, the task's id and a
fingerprint of its arguments. The fingerprint of a result is the key of the task that made it, so
nothing big is ever hashed, and a change of one input changes the keys of all tasks behind it and
of no other. Only plain data has a fingerprint: numbers, text, bytes, dates, lists, dicts, sets,
enums, dataclasses and msgspec structs.

Not part of the key: the code, and types that msgpack writes alike (a tuple and a list, an enum and
its value, a date and its ISO text). Change a task's ``id``, or give the graph a version as an input,
when a task shall give another result for the same arguments.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from aiopatterns.core.errors import DagError
from aiopatterns.flow.task import Given, Results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.flow.task import Binding

__all__ = ["ResultStore", "result_key"]


@runtime_checkable
class ResultStore(Protocol):
    """Where results are kept from one run to the next."""

    async def get(self, key: str, default: Any, /) -> Any:
        """Return what is stored under ``key``, or ``default``."""

    async def set(self, key: str, value: Any, /) -> object:
        """Store ``value`` under ``key``."""


def result_key(
    dag: str, task: str, bindings: Mapping[str, Binding], keys: Mapping[str, str]
) -> str:
    """Return the key of a task's result.

    Args:
        dag: The graph's name.
        task: The task's id.
        bindings: Where its arguments come from.
        keys: The keys of the tasks before it.

    Raises:
        DagError: An argument is no plain data.
    """
    import msgspec

    digest = sha256(msgspec.msgpack.encode([dag, task]))  # "a:b", "c" is not "a", "b:c"
    for name in sorted(bindings):
        source = bindings[name]
        if isinstance(source, Results):
            part: object = [keys[each] for each in source.ids]
        elif isinstance(source, Given):
            part = source.value
        else:
            part = None
        kind = type(source).__name__
        try:
            digest.update(msgspec.msgpack.encode([name, kind, part], order="deterministic"))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DagError(
                f"argument {name!r} of task {task!r} has no fingerprint, so its result cannot be "
                f"stored: {part!r:.80} is no plain data ({error})"
            ) from error
    return f"{dag}:{task}:{digest.hexdigest()[:32]}"
