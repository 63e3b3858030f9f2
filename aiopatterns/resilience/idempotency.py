"""Idempotency: what was asked for twice is done once, also by another process and a day later.

A client that got no answer asks again, and cannot know that the first try was done. So it sends a
key with the request, the same for each try, and the outcome is kept under it::

                       nobody has the key                    it ended
    call --- key ---> RUNNING, for the lease ---- fn() ----> DONE, for the ttl
                        |      ^  renewed               |
                        |      |  meanwhile             '--- it failed: the key is free
    same key, same      |
    payload ------------'--> waits for the end, and gets the stored outcome
    same key, another payload --> ConflictError

The whole state is one value under one key, changed by ``compare_and_set`` alone: who put
``RUNNING`` there with its own mark is the one who runs.

Guarantees:

* While a call runs, and for ``ttl`` seconds after it has succeeded, no other of its key begins.
  Those that come get an equal result.
* A failure is not kept, and neither is a cancellation: the next call runs.
* A process that dies frees its keys when their leases end, at most ``lease`` seconds later.
* Another payload under a key that is taken is refused, and nothing runs.

Not guaranteed: exactly once. A process that is dead, or cut off from the backend, for longer than
its lease may have done its work, and the next one does it again; so may one that could not store
its outcome (the event ``idempotency.unrecorded`` tells). Nothing runs while the backend is out of
reach: that would be the repetition which the key was sent to prevent.

Source: draft-ietf-httpapi-idempotency-key-header; Stripe's API, which also runs failed work anew.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    NoReturn,
    ParamSpec,
    TypeVar,
    cast,
    final,
    get_type_hints,
)

import msgspec
from anyio import create_task_group, get_cancelled_exc_class, move_on_after

from aiopatterns.backends.opening import resolve
from aiopatterns.backends.records import DELETE
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.context import new_id, remaining
from aiopatterns.core.errors import BackendError, CodecError, ConflictError, RejectedError
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import (
    non_negative,
    optional_function,
    plain_function,
    positive,
    text,
)
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from aiopatterns.backends.protocols import Backend, Subscribed
    from aiopatterns.backends.records import Delete

__all__ = ["IdempotencyReplayed", "IdempotencyUnrecorded", "Idempotent"]

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds after which one who waits looks by itself: nobody tells that a lease has ended.
LOOK: Final = 0.5
#: Seconds in which a key is given back by one who is cancelled; after that its lease ends.
GIVE_BACK: Final = 0.5
# Seconds before an outcome is stored again if the backend does not answer.
_PAUSES: Final = (0.1, 0.4, 1.5)

# Equal arguments are equal bytes, whatever the order of a dict or a set.
_payload_bytes = msgspec.msgpack.Encoder(order="deterministic").encode


@final
class Record(msgspec.Struct, frozen=True, array_like=True):
    """What stands under a key; new fields go to the end.

    Args:
        done: Whether the call has ended.
        payload: Fingerprint of what was asked.
        owner: Mark of the one who runs, or ran.
        outcome: The result as the codec wrote it.
    """

    done: bool
    payload: bytes
    owner: str
    outcome: bytes = b""


_record_of = MSGPACK.decoder(Record)


@dataclass(frozen=True, slots=True)
class IdempotencyReplayed(Event):
    """A call was answered by a stored outcome.

    Args:
        policy: Name of the policy.
        key: The key.
    """

    name: ClassVar[str] = "aiopatterns.idempotency.replayed"

    policy: str
    key: str


@dataclass(frozen=True, slots=True)
class IdempotencyUnrecorded(Event):
    """A call has succeeded, but its outcome could not be stored: it may be done again.

    Args:
        policy: Name of the policy.
        key: The key.
        error: Why.
    """

    name: ClassVar[str] = "aiopatterns.idempotency.unrecorded"
    level: ClassVar[str] = "error"

    policy: str
    key: str
    error: str


@final
@dataclass(frozen=True, slots=True)
class _Rules:
    """What all calls of one policy have in common."""

    backend: Backend
    name: str
    ttl: float
    lease: float
    max_wait: float


@final
class Idempotent(Policy):
    """Run a call once for each key, and answer repetitions by what it has returned.

    Args:
        backend: Where outcomes are kept: an open backend, or a URL; one made of a URL is opened
            by ``async with policy.backend:``.
        key: A function of the call's arguments that gives the key, as text; None is for a call
            that has no key and is run as it is.
        ttl: Seconds for which an outcome is kept.
        name: Of what the keys belong to; two policies with one name share their keys.
        payload: A function of the call's arguments that gives what has to be the same in each
            try, by default all arguments. Give one if some of them cannot be encoded, such as a
            ``self``, or do not matter, such as a trace.
        returns: The type as which a stored result comes back, by default what the function says
            it returns. Give one if it does not say so, or if this policy is not the innermost.
        max_wait: Seconds that a repetition waits for the call that runs; None waits for its end,
            0 refuses at once.
        lease: Seconds after which a process that has died loses the key. It is renewed while the
            call runs, however long that takes.

    Results are stored as MessagePack: numbers, text, bytes, dates, collections, dataclasses. A
    stream cannot be repeated and is refused.

    Example::

        once = Idempotent(backend, key=lambda order, **_: order.id, name="charge")


        @once
        async def charge(order: Order) -> Receipt: ...
    """

    __slots__ = ("_key", "_payload", "_returns", "_rules")

    kind = "idempotency"

    def __init__(
        self,
        backend: Backend | str,
        *,
        key: Callable[..., str | None],
        ttl: float = 86_400.0,
        name: str = "calls",
        payload: Callable[..., object] | None = None,
        returns: Any = None,
        max_wait: float | None = None,
        lease: float = 15.0,
    ) -> None:
        self._key = plain_function("key", key)
        self._payload = optional_function("payload", payload) or _all_arguments
        self._returns = returns
        if returns is not None:
            MSGPACK.decoder(returns)
        self._rules = _Rules(
            resolve(backend),
            text("name", name),
            positive("ttl", ttl),
            positive("lease", lease),
            math.inf if max_wait is None else non_negative("max_wait", max_wait, finite=False),
        )

    def __repr__(self) -> str:
        return f"Idempotent(name={self._rules.name!r})"

    @property
    def backend(self) -> Backend:
        """Where outcomes are kept."""
        return self._rules.backend

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that calls ``fn`` once for each key.

        The function raises what ``fn`` raises, and:

        Raises:
            ConflictError: The key was used with another payload.
            RejectedError: The call of the key did not end within ``max_wait``, or until the
                deadline bound here.
            BackendError: The backend is out of reach or refuses; ``fn`` did not run.
            CodecError: The payload, the result or what is stored cannot be encoded or decoded.

        Cancellation: of the one who runs, frees the key, unless its outcome is just being stored:
            then that is done first. Of one who waits, leaves nothing.

        Complexity: 2 round trips for a call, 2 for a repetition.
        """
        decode = MSGPACK.decoder(_returned(fn) if self._returns is None else self._returns)

        async def once(*args: P.args, **kwargs: P.kwargs) -> T:
            key = self._key(*args, **kwargs)
            if key is None:
                return await fn(*args, **kwargs)
            call = _Call(self._rules, text("key", key), self._fingerprint(*args, **kwargs))
            stored = await call.begin()
            if stored is not None:
                return cast("T", decode(stored))
            return await call.run(partial(fn, *args, **kwargs))

        return once

    def wrap_stream(self, fn: Callable[P, AsyncGenerator[T, Any]]) -> NoReturn:
        """Refuse.

        Raises:
            TypeError: A stream cannot be repeated.
        """
        msg = f"a stream cannot be repeated, so {fn!r} cannot be idempotent"
        raise TypeError(msg)

    def _fingerprint(self, *args: object, **kwargs: object) -> bytes:
        """Return few bytes that are the same for the same payload in every process.

        Raises:
            CodecError: The payload cannot be encoded.
        """
        payload = self._payload(*args, **kwargs)
        try:
            encoded = _payload_bytes(payload)
        except Exception as error:
            msg = f"{self!r} cannot encode the payload, give it a payload=: {error}"
            raise CodecError(msg) from error
        return blake2b(encoded, digest_size=16).digest()


@final
class _Call:
    """One call under its key: the steps of the drawing above."""

    __slots__ = ("_key", "_mine", "_place", "_record", "_rules", "_until")

    def __init__(self, rules: _Rules, key: str, payload: bytes) -> None:
        self._rules = rules
        self._key = key
        self._place = f"idempotent:{rules.name}:{key}"  # of the value, and of live messages
        self._record = Record(done=False, payload=payload, owner=new_id())
        self._mine = MSGPACK.encode(self._record)
        left = remaining()
        limit = rules.max_wait if left is None else min(rules.max_wait, left)
        self._until = monotonic() + limit

    async def begin(self) -> bytes | None:
        """Return the stored outcome, waiting for it if need be, or None: it is ours to run."""
        while not await self._claim():
            found = await self._read()
            if found is not None and not found.done:
                found = await self._wait()
            if found is not None:
                if listening():
                    emit(IdempotencyReplayed(self._rules.name, self._key))
                return found.outcome
        return None

    async def run(self, fn: Callable[[], Awaitable[T]]) -> T:
        """Run ``fn`` while the lease is renewed, and store what it returns."""
        try:
            result = await self._while_renewing(fn)
            outcome = MSGPACK.encode(result)
        except (Exception, get_cancelled_exc_class()):
            await self._give_back()
            raise
        await self._store(msgspec.structs.replace(self._record, done=True, outcome=outcome))
        return result

    # -- beginning -----------------------------------------------------------------------------

    async def _claim(self) -> bool:
        """Take the key if it is free."""
        try:
            return await self._change(None, self._mine, self._rules.lease)
        except (Exception, get_cancelled_exc_class()):
            await self._give_back()  # it may have happened
            raise

    async def _read(self) -> Record | None:
        """Return what stands under the key, if it is about the same payload.

        Raises:
            ConflictError: It is about another.
        """
        data = await self._rules.backend.kv.get(self._place)
        if data is None:
            return None
        found = _record_of(data)
        if found.payload != self._record.payload:
            msg = f"the key {self._key!r} was used with another payload; take a new key for it"
            raise ConflictError(msg, key=self._key)
        return found

    async def _wait(self) -> Record | None:
        """Wait for the end of the call that runs; None if it left nothing.

        Raises:
            RejectedError: It did not end in time.
        """
        limit = self._until - monotonic()
        if limit > 0:
            with move_on_after(None if limit == math.inf else limit):
                async with self._rules.backend.pubsub.subscribe(self._place) as notices:
                    return await self._ended(notices)
        msg = f"a call with the key {self._key!r} has not ended yet"
        raise RejectedError(msg, name=self._rules.name)

    async def _ended(self, notices: Subscribed) -> Record | None:
        while (found := await self._read()) is not None and not found.done:
            with move_on_after(LOOK):
                await anext(notices, None)
        return found

    # -- running -------------------------------------------------------------------------------

    async def _while_renewing(self, fn: Callable[[], Awaitable[T]]) -> T:
        """Run ``fn`` in this task, and what holds the key beside it; errors leave bare."""
        results: list[T] = []
        try:
            async with create_task_group() as group:
                group.start_soon(self._renew)
                try:
                    results.append(await fn())
                finally:
                    group.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            raise_bare(errors)
        return results[0]

    async def _renew(self) -> None:
        """Hold on to the key until it is lost."""
        lease, held = self._rules.lease, True
        while held:
            await sleep(lease / 3)
            with suppress(BackendError):  # the next try comes before the lease ends
                held = await self._change(self._mine, self._mine, lease)

    # -- ending --------------------------------------------------------------------------------

    async def _store(self, record: Record) -> None:
        """Keep the outcome; a cancellation waits for that."""
        done, error = MSGPACK.encode(record), "storing it was interrupted"
        with move_on_after(GIVE_BACK + sum(_PAUSES), shield=True):
            try:
                error = await self._stored(done)
            except get_cancelled_exc_class():
                # No shield holds off Task.cancel(). But the work is done, so this is tried again.
                await self._stored(done)
                raise
        if error and listening():
            emit(IdempotencyUnrecorded(self._rules.name, self._key, error))

    async def _stored(self, done: bytes) -> str:
        """Put ``done`` in the place of our mark; return what was wrong, nothing if all is well."""
        error = ""
        for pause in (0.0, *_PAUSES):
            if pause:
                await sleep(pause)
            try:
                if await self._change(self._mine, done, self._rules.ttl, tell=True):
                    return ""
                # The answer to an earlier try may have been lost; else another call has the key.
                held = await self._rules.backend.kv.get(self._place)
                return "" if held == done else "the lease had ended"
            except BackendError as failed:
                error = str(failed)
        return error

    async def _give_back(self) -> None:
        """Free the key if it is ours; if that does not succeed, its lease ends."""
        with move_on_after(GIVE_BACK, shield=True), suppress(BackendError):
            await self._change(self._mine, DELETE, None, tell=True)

    async def _change(
        self,
        expected: bytes | None,
        value: bytes | Delete,
        ttl: float | None,
        *,
        tell: bool = False,
    ) -> bool:
        return await self._rules.backend.kv.compare_and_set(
            self._place, expected, value, ttl=ttl, notify=self._place if tell else None
        )


def _all_arguments(*args: object, **kwargs: object) -> object:
    return args, kwargs


def _returned(fn: Callable[..., object]) -> Any:
    """Return the type that ``fn`` says it returns; Any if it does not say so."""
    try:
        said = get_type_hints(fn).get("return", Any)
    except Exception:  # a name that does not exist at run time, or no function at all
        return Any
    return Any if said is object or isinstance(said, TypeVar) else said
