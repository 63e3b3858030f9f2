"""StreamConsumer: one member of a group that handles the messages of a stream.

Messages are claimed in the background, handed out, and settled by how their handling ends::

    stream --claim--> in hand (prefetch) --> block or handler --ends--> done
      ^                    |                     |--raises--> comes again, later
      |                    |                     |--raises too often, or Reject--> dead letter
      `----- given back ---'                     `--cancelled--> given back, not counted

Two ways to handle them: :class:`~aiopatterns.messaging.Delivery` blocks, one after the other or in
tasks of yours, and :meth:`StreamConsumer.run`, which calls a handler for as many as you say at once.

Guarantees:

* At least once: a message is done when its handling has ended without an error, and comes again
  until then, or is in the dead letters after ``max_deliveries``.
* What a killed or silent consumer had in hand is handled by another after ``claim_idle`` seconds
  and a second more at most, also when nothing is appended.
* A message that cannot be read is in the dead letters at once, with its bytes; so is one of a
  version that the upcasters do not know, or cannot bring to the newest.
* With ``key=``, messages of one key are handled one at a time and in the order of the stream, over
  all consumers of the group, also when some fail and are tried again. For that one consumer of the
  group handles them, the others stand by.
* Outages of the backend end nothing.

Not guaranteed: exactly once, for a consumer may be killed after the work and before it could say
so; and order without ``key=``. A consumer that was frozen for longer than ``claim_idle`` may finish
what it was at while another one handles it again; what it says then is not heard.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, final

from anyio import Event, create_task_group, move_on_after

from aiopatterns.backends.names import check_name
from aiopatterns.backends.owner import BackendOwner
from aiopatterns.core.context import new_id
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.validate import (
    count,
    function,
    instance,
    non_negative,
    optional_function,
    positive,
)
from aiopatterns.core.waiters import Waiters
from aiopatterns.messaging.delivery import Delivery
from aiopatterns.messaging.fetcher import Fetcher
from aiopatterns.messaging.fetchterms import FetchTerms
from aiopatterns.messaging.judge import Judge
from aiopatterns.messaging.stream import Stream
from aiopatterns.messaging.streamcrew import StreamCrew
from aiopatterns.messaging.turnstile import Turnstile
from aiopatterns.messaging.versioning import optional_upcasters
from aiopatterns.resilience.backoff import Exponential

if TYPE_CHECKING:
    from typing import Self

    from anyio.abc import TaskGroup

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.messaging.claim import Claim
    from aiopatterns.messaging.streamcrew import StreamHandler, StreamKey
    from aiopatterns.messaging.versioning import Upcasters
    from aiopatterns.resilience.backoff import Backoff

__all__ = ["ConsumerStatistics", "StreamConsumer"]

#: The waits between the attempts of a message, unless told otherwise; the first ends within 1 s.
_BACKOFF: Final = Exponential(initial=0.4, factor=2, cap=60.0, jitter="equal")


@final
@dataclass(frozen=True, slots=True)
class ConsumerStatistics:
    """What a consumer has done since it was opened last.

    At every instant ``claimed == acked + retried + dead + released + lost + in_hand``.

    Attributes:
        claimed: Entries taken in hand.
        acked: Those that are done.
        retried: Those that failed, and were given back to come again.
        dead: Those that were given up.
        released: Those that were given back without being counted.
        lost: Those that another consumer has taken, for this one was silent for too long.
        in_hand: Those that are here.
        claiming: Whether it claims; with ``key=`` one consumer of a group does.
    """

    claimed: int
    acked: int
    retried: int
    dead: int
    released: int
    lost: int
    in_hand: int
    claiming: bool


@final
class StreamConsumer(BackendOwner):
    """One member of a group of consumers.

    Args:
        stream: What to consume. Its backend is opened and closed with the consumer.
        group: Every group gets every message, and shares them out among its consumers. A new one
            begins at the oldest entry.
        prefetch: Entries in hand at most: those in handling, and those that wait for it.
        max_deliveries: Attempts of one message, after which it is a dead letter.
        claim_idle: Seconds of silence after which a consumer's entries go to others; it renews
            them three times as often, as long as its loop runs.
        backoff: The waits between attempts.
        grace: Seconds that handlers have to come to their end when the consumer ends.
        upcasters: Bring old messages to their newest form, before ``key=`` and handlers see them.

    Raises:
        ValueError: A value is out of its range.
        TypeError: A value is of another type.

    Example::

        async with StreamConsumer(stream, group="mail") as consumer:
            async for delivery in consumer:
                async with delivery as message:
                    await send_mail(message.payload)
    """

    __slots__ = (
        "_arrivals",
        "_backoff",
        "_crew",
        "_ended",
        "_fetcher",
        "_grace",
        "_judge",
        "_stream",
        "_terms",
        "_turnstile",
        "_waiting",
        "backend",
    )

    def __init__(
        self,
        stream: Stream,
        *,
        group: str,
        prefetch: int = 100,
        max_deliveries: int = 5,
        claim_idle: float = 30.0,
        backoff: Backoff = _BACKOFF,
        grace: float = 10.0,
        upcasters: Upcasters | None = None,
    ) -> None:
        self._stream = instance("stream", stream, Stream, "a Stream")
        super().__init__(f"{stream.name}/{check_name('group', group)}")
        self.backend: Backend = stream.backend
        self._terms = FetchTerms(
            stream=stream.name,
            group=group,
            consumer="",
            prefetch=count("prefetch", prefetch),
            max_deliveries=count("max_deliveries", max_deliveries),
            claim_idle=positive("claim_idle", claim_idle),
            upcasters=optional_upcasters(upcasters),
        )
        if not callable(getattr(backoff, "delay", None)):
            msg = (
                f"backoff must have a method delay(n, *, rng), as Exponential has, not {backoff!r}"
            )
            raise TypeError(msg)
        self._backoff = backoff
        self._grace = non_negative("grace", grace)
        self._fetcher: Fetcher | None = None
        self._crew: StreamCrew | None = None  # while run() is at work
        self._turnstile: Turnstile | None = None  # and keeps an order
        self._waiting: deque[Claim] = deque()
        self._arrivals = Waiters()
        self._ended = Event()

    @property
    def stream(self) -> Stream:
        """What it consumes."""
        return self._stream

    def statistics(self) -> ConsumerStatistics:
        """Return the figures since it was opened last; all 0 before that."""
        fetcher = self._fetcher
        if fetcher is None:
            return ConsumerStatistics(0, 0, 0, 0, 0, 0, 0, claiming=False)
        tally = fetcher.tally
        return ConsumerStatistics(
            tally.claimed,
            tally.acked,
            tally.retried,
            tally.dead,
            tally.released,
            tally.lost,
            len(fetcher.held),
            claiming=fetcher.claiming,
        )

    async def run(
        self, handler: StreamHandler, *, concurrency: int = 16, key: StreamKey | None = None
    ) -> None:
        """Handle messages until :meth:`stop`, or for ever.

        Args:
            handler: Called with each message: an async function, or a plain one that does not
                block. What it raises decides as in a :class:`~aiopatterns.messaging.Delivery`.
            concurrency: Handlers at once at most.
            key: Gives the key of a message; those of one key are handled one at a time and in the
                order of the stream, over all consumers of the group, which must all keep the same
                order. None is for messages without order.

        Raises:
            RuntimeError: The consumer is open already.
            BackendUnavailableError: Nobody answers at the beginning; later that ends nothing.
            ValueError: A value is out of its range.
            TypeError: A value is of another type.

        Cancellation: handlers are cancelled, and their messages given back, not counted.
        """
        function("handler", handler)
        count("concurrency", concurrency)
        optional_function("key", key)
        if self.is_open:
            msg = f"StreamConsumer {self.name!r} is open already; call run() outside its block"
            raise RuntimeError(msg)
        self._crew = StreamCrew(handler, concurrency=concurrency, key=key)
        try:
            async with self:
                await self._work(self._crew, ordered=key is not None)
        finally:
            self._crew = None

    def stop(self) -> None:
        """Claim nothing more: iteration and :meth:`run` end when what is at work has ended.

        May be called from a signal handler of the loop, any number of times.
        """
        if self._fetcher is not None and self.is_open:
            self._ended.set()
            self._fetcher.relinquish()
            self._waiting.clear()
            self._arrivals.wake_all()

    def __aiter__(self) -> Self:
        """Iterate over deliveries; several tasks may."""
        return self

    async def __anext__(self) -> Delivery:
        """Return the next delivery.

        Raises:
            StopAsyncIteration: The consumer was stopped.
            ClosedError: It is not open.
            RuntimeError: :meth:`run` handles the messages.

        Cancellation: no message is lost.
        """
        self._open_group()
        if self._crew is not None:
            msg = f"StreamConsumer {self.name!r} runs a handler, which takes all messages"
            raise RuntimeError(msg)
        _, judge = self._parts
        while True:
            while self._waiting:
                claim = self._waiting.popleft()
                if judge.holds(claim):
                    return Delivery(claim, judge)
            if self._ended.is_set():
                raise StopAsyncIteration
            await self._arrivals.wait()

    # --------------------------------------------------------------------------- private core

    @property
    def _parts(self) -> tuple[Fetcher, Judge]:
        assert self._fetcher is not None, "made by the opening"
        return self._fetcher, Judge(self._fetcher, self._backoff)

    def _arrive(self, claim: Claim) -> None:
        self._waiting.append(claim)
        self._arrivals.wake()

    async def _work(self, crew: StreamCrew, *, ordered: bool) -> None:
        """Let the crew handle what comes, until this is stopped."""
        fetcher, judge = self._parts
        try:
            async with create_task_group() as tasks:
                crew.start(tasks, fetcher, judge)
                if ordered:
                    lease = self.backend.lease(f"stream:{self.name}")
                    turnstile = Turnstile(lease, fetcher, ttl=self._terms.claim_idle)
                    self._turnstile = turnstile
                    tasks.start_soon(turnstile.run)
                else:
                    fetcher.resume(inherits=False)
                await self._ended.wait()
                with move_on_after(self._grace):
                    await fetcher.quiet()
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            raise_bare(errors)

    async def _start(self, tasks: TaskGroup) -> None:
        crew = self._crew
        self._ended = Event()
        self._waiting.clear()
        self._fetcher = fetcher = Fetcher(
            self._stream.log,
            replace(self._terms, consumer=new_id()),
            self._stream.envelopes,
            admit=self._arrive if crew is None else crew.admit,
            fetching=crew is None,
        )
        await fetcher.prepare()
        tasks.start_soon(fetcher.run, self._grace)
        tasks.start_soon(fetcher.listen)

    async def _drain(self) -> None:
        self.stop()
        with move_on_after(self._grace):
            await self._parts[0].quiet()

    async def _leave(self, group: TaskGroup, cause: BaseException | None) -> None:
        """End the fetcher, which is deaf to cancellation: it gives back what is in hand."""
        self._parts[0].finish()
        await super()._leave(group, cause)

    def _settle(self) -> None:
        self._ended.set()
        self._waiting.clear()
        self._arrivals.wake_all()

    async def _give_back(self) -> None:
        turnstile, self._turnstile = self._turnstile, None
        if turnstile is not None:
            await turnstile.leave()
