"""Keys of a job: which one it must be alone under, which limits it shares, and where it goes.

In a queue with partitions each holds its own unique keys and limits, so jobs that share one must
meet in one partition. That is the hash of

1. the bucket of the limit, if the job has one;
2. else the unique key, if it has one;
3. else its own id, if the user has made it.

What has none of these goes to the partitions in turn. A job after others goes where they are, and
is refused if its key says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from aiopatterns.backends.queue import UniqueKey
from aiopatterns.core.hashing import stable_hash
from aiopatterns.core.template import Template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiopatterns.backends.queue import Bucket
    from aiopatterns.jobs.limits import Limits
    from aiopatterns.jobs.options import JobOptions
    from aiopatterns.jobs.signature import Signature

__all__ = ["QUEUE_BUCKET", "Keys", "KeysOf", "place"]

#: The bucket of a limit of the whole queue; those of jobs begin with the name of the job.
QUEUE_BUCKET: Final = "queue"
_JOB: Final = "job:"
# Stands in no name, so the name and the key of a job cannot run together.
_BETWEEN: Final = "\x1f"


class KeysOf(NamedTuple):
    """The keys of one call: the unique key, the buckets, and what decides the partition."""

    unique: UniqueKey | None
    buckets: tuple[Bucket, ...]
    route: str | None


@final
class Keys:
    """The keys of the calls of one job.

    Args:
        name: The job's name; keys of different jobs never meet.
        options: The job's options.
        signature: The parameters that templates may name.
        shared: A limit of the whole queue.

    Raises:
        ValueError: A template does not fit the signature.
    """

    __slots__ = ("_limit", "_limits", "_name", "_plain", "_shared", "_unique", "_window")

    def __init__(
        self, name: str, options: JobOptions, signature: Signature, shared: Limits | None
    ) -> None:
        self._name = name
        self._limits, self._window = options.limits, options.unique
        self._limit = self._unique = None
        if self._limits is not None and self._limits.key is not None:
            self._limit = Template("limits.key", self._limits.key, signature.parameters)
        if self._window is not None:
            self._unique = Template("unique.key", self._window.key, signature.parameters)
        self._shared = () if shared is None else (shared.bucket(QUEUE_BUCKET),)
        self._plain = KeysOf(None, self._shared, None)

    @property
    def splits(self) -> bool:
        """Whether jobs that share one key may have another one apart: limits do not cover unique."""
        return (
            self._unique is not None
            and self._limit is not None
            and self._limit.template != self._unique.template
        )

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> KeysOf:
        """Return the keys of a call. O(length of the keys)."""
        if self._limits is None and self._window is None:
            return self._plain
        unique, buckets, route = None, self._shared, None
        if self._window is not None and self._unique is not None:
            key = self._unique.render(args, kwargs)
            route = f"{self._name}{_BETWEEN}{key}"
            unique = UniqueKey(route, self._window.mode, self._window.window or 0.0)
        if self._limits is not None:
            route = f"{_JOB}{self._name}"
            if self._limit is not None:
                route = f"{route}{_BETWEEN}{self._limit.render(args, kwargs)}"
            buckets = (*buckets, self._limits.bucket(route))
        return KeysOf(unique, buckets, route)


def place(route: str, partitions: int) -> int:
    """Return the partition of a key. O(length)."""
    return stable_hash(route) % partitions
