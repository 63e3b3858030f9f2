"""The judge: what becomes of a message, by how its block or handler has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.core.clock import rng
from aiopatterns.core.errors import Reject, RetryLater
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.messaging.letters import reason_of
from aiopatterns.messaging.streamevents import StreamHandlerFailed
from aiopatterns.messaging.tracing import processing

if TYPE_CHECKING:
    from aiopatterns.core.tracing import Span
    from aiopatterns.messaging.claim import Claim
    from aiopatterns.messaging.fetcher import Fetcher
    from aiopatterns.resilience.backoff import Backoff

__all__ = ["Judge"]


@final
class Judge:
    """Settles the claims of one consumer.

    Args:
        fetcher: Holds them.
        backoff: The waits between attempts.
    """

    __slots__ = ("_backoff", "_fetcher")

    def __init__(self, fetcher: Fetcher, backoff: Backoff) -> None:
        self._fetcher = fetcher
        self._backoff = backoff

    def holds(self, claim: Claim) -> bool:
        """Whether the claim is in hand."""
        return self._fetcher.held.get(claim.id) is claim

    def span(self, claim: Claim) -> Span:
        """Begin the span of the handling of ``claim``."""
        return processing("stream", claim.message, group=self._fetcher.terms.group)

    def begin(self, claim: Claim) -> None:
        """A block handles ``claim`` now."""
        self._fetcher.begin(claim)

    def forgotten(self, claim: Claim) -> None:
        """Nobody will handle this delivery."""
        if self._fetcher.home.here:  # else a dead loop's, or another thread collects garbage
            self._fetcher.release(claim)

    def decide(self, claim: Claim, error: BaseException | None) -> None:
        """Settle ``claim`` after its block or handler has ended by ``error``."""
        fetcher = self._fetcher
        if error is None:
            fetcher.ack(claim)
        elif isinstance(error, RetryLater):
            fetcher.release_later(claim, error.delay)
        elif not isinstance(error, Exception):
            fetcher.release(claim)
        elif not self.gives_up(claim, error):
            fetcher.retry(claim, self.delay(claim, error))

    def gives_up(self, claim: Claim, error: Exception) -> bool:
        """Bury ``claim`` if it is not to be tried again; whether it was."""
        rejected = isinstance(error, Reject)
        if not rejected and claim.attempt < self._fetcher.terms.max_deliveries:
            return False
        self._fetcher.bury(claim, reason_of(error))
        return True

    def delay(self, claim: Claim, error: Exception) -> float:
        """Return the seconds until the next attempt, and tell of the failed one."""
        delay = self._backoff.delay(claim.attempt, rng=rng())
        if listening():
            terms = self._fetcher.terms
            failed = (terms.stream, terms.group, claim.id, claim.attempt, delay, reason_of(error))
            emit(StreamHandlerFailed(*failed))
        return delay
