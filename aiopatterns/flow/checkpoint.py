"""What a run of a graph leaves behind, so that the next one need not do it again.

Every finished task is stored under a key that is made of the graph's name, the task's id and a
fingerprint of its arguments. The fingerprint of a result is the key of the task that made it, so
nothing big is ever hashed, and a change of one input changes the keys of all tasks behind it and
of no other. Only plain data has a fingerprint: numbers, text, bytes, dates, lists, dicts, sets,
enums, dataclasses and msgspec structs.

Not part of the key: the code, and types that msgpack writes alike (a tuple and a list, an enum and
its value, a date and its ISO text). Change a task's ``id``, or give the graph a version as an input,
when a task shall give another result for the same arguments.

:class:`KvStore` keeps results in a backend, so that a run in another process, or on another
machine, goes on where the first one stopped.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol, final, runtime_checkable

from aiopatterns.core.errors import DagError
from aiopatterns.core.validate import optional_positive, text
from aiopatterns.flow.task import Given, Results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.backends.protocols import Kv
    from aiopatterns.core.codec import Codec
    from aiopatterns.flow.task import Binding

__all__ = ["KvStore", "ResultStore", "result_key"]

_WEEK: Final = 7 * 24 * 3600.0


@runtime_checkable
class ResultStore(Protocol):
    """Where results are kept from one run to the next."""

    async def get(self, key: str, default: Any, /) -> Any:
        """Return what is stored under ``key``, or ``default``."""

    async def set(self, key: str, value: Any, /) -> object:
        """Store ``value`` under ``key``."""


@final
class KvStore:
    """Results in the keys and values of a backend.

    Args:
        kv: Where; ``backend.kv`` of an open backend.
        codec: How results become bytes, such as ``JSON`` or ``MSGPACK``. They come back as plain
            data: a dataclass as a mapping, with JSON a tuple as a list.
        prefix: What all keys begin with.
        ttl: Seconds for which a result is kept; None is for ever.

    Raises:
        TypeError: ``codec`` is no codec.
        ValueError: ``prefix`` is empty, or ``ttl`` is not above 0.

    A result that the codec cannot encode is a ``CodecError``, and its task has failed.

    Example::

        async with open_backend("redis://localhost") as backend:
            run = await etl.run(inputs={"day": day}, store=KvStore(backend.kv, JSON))
    """

    __slots__ = ("_codec", "_decode", "_kv", "_prefix", "_ttl")

    def __init__(
        self, kv: Kv, codec: Codec, *, prefix: str = "dag:", ttl: float | None = _WEEK
    ) -> None:
        if not hasattr(codec, "decoder"):
            msg = f"codec must be a codec such as JSON or MSGPACK, not {codec!r}"
            raise TypeError(msg)
        self._kv = kv
        self._codec = codec
        self._decode = codec.decoder(Any)
        self._prefix = text("prefix", prefix)
        self._ttl = optional_positive("ttl", ttl)

    async def get(self, key: str, default: Any, /) -> Any:
        """Return what is stored under ``key``, or ``default``. 1 round trip."""
        data = await self._kv.get(self._prefix + key)
        return default if data is None else self._decode(data)

    async def set(self, key: str, value: Any, /) -> None:
        """Store ``value`` under ``key``. 1 round trip."""
        await self._kv.set(self._prefix + key, self._codec.encode(value), ttl=self._ttl)


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
