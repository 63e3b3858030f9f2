"""The fetcher: everything one consumer says to the log of its stream, in one turn after the other.

Exactly one turn is in flight. What comes to an end meanwhile collects; when the answer is there, the
next turn goes out at once with all of it, and asks for all that there is room for. Only then are the
entries of the answer read and handed on, so the server is at work while we are. So it clocks
itself: a message that ends on a quiet stream is acknowledged right away, and at full load a turn
carries a hundred acknowledgements and brings a hundred entries, while those before are handled::

         .------------------------------------------------------------.
         v                                                            |
    anything to say? --no--> read what has come and hand it on; park, |
         | yes               until a message ends, an entry is        |
         v                   appended, or claims are to be renewed    |
       turn out                                                       |
         | read what the turn before has brought, and hand it on      |
         v                                                            |
       answer --> lost: told; claimed: kept, to be read --------------'
         |                                                            ^
         '--error--> wait a little, say the same again, ask what is   |
                     held, adopt what is unknown, lose what is gone --'

Guarantees:

* The fetcher is never cancelled while a turn is on its way: it is told to end, and then says what
  is left and gives back what it holds. An entry whose claim was never heard of is found by ``held``.
* At every instant ``claimed == acked + retried + dead + released + lost + in_hand``.
* An outage ends nothing; a group that the server has lost is made again.
* An idle consumer takes a turn every :data:`WATCH` seconds, so it takes over what others have
  abandoned also when nothing is appended.

Not guaranteed: that a message is handled once. An acknowledgement that a killed process has not
sent, or that came after its claim had ended, makes it come again.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, final

import msgspec
from anyio import CancelScope, move_on_after

from aiopatterns.backends.records import Entry
from aiopatterns.core.clock import Home, call_later, monotonic, rng, sleep, yield_now
from aiopatterns.core.errors import BackendError, CodecError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.waiters import Gate, Waiters
from aiopatterns.messaging.claim import Claim
from aiopatterns.messaging.dialogue import Dialogue
from aiopatterns.messaging.fetchterms import Tally
from aiopatterns.messaging.letters import reason_of
from aiopatterns.messaging.streamevents import (
    StreamDeadLettered,
    StreamDeliveryLost,
    StreamInterrupted,
    StreamResumed,
)
from aiopatterns.messaging.talk import Talk
from aiopatterns.resilience.backoff import Exponential

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.backends.protocols import Log
    from aiopatterns.backends.records import Claimed, GroupTurn, GroupTurned
    from aiopatterns.core.clock import Parked
    from aiopatterns.messaging.envelope import Envelopes
    from aiopatterns.messaging.fetchterms import FetchTerms

__all__ = ["WATCH", "Fetcher"]

#: Seconds between two turns of a consumer that has room; what others have abandoned waits no longer.
WATCH: Final = 0.8

# The waits between tries.
_AGAIN: Final = Exponential(initial=0.05, factor=2, cap=1.5, jitter="equal")
# How long one wait on the log's side lasts.
_WAIT: Final = 10.0
# Everything that others hold counts as abandoned after so many seconds, for who takes over.
_AT_ONCE: Final = 1e-6
# Turns in a row until the loop is given one.
_TURN: Final = 16
# Entries that one turn takes over at most.
_INHERITANCE: Final = 10_000


@final
class Fetcher:
    """The dialogue of one consumer with the log.

    Args:
        log: Where the entries are.
        terms: How they are taken.
        envelopes: Reads them.
        admit: Called with each claim; it must not raise.
        fetching: Whether to claim from the beginning.
    """

    __slots__ = (
        "_admit",
        "_dialogue",
        "_ending",
        "_envelopes",
        "_gate",
        "_inherits",
        "_life",
        "_log",
        "_quiet",
        "_renew_at",
        "_resting",
        "_seat",
        "_speaking",
        "_talk",
        "_turns",
        "_unread",
        "_waiting",
        "_wants",
        "_watch_at",
        "claiming",
        "held",
        "home",
        "tally",
        "terms",
    )

    def __init__(
        self,
        log: Log,
        terms: FetchTerms,
        envelopes: Envelopes,
        *,
        admit: Callable[[Claim], object],
        fetching: bool = True,
    ) -> None:
        self.terms: Final[FetchTerms] = terms
        self.held: dict[str, Claim] = {}
        self.tally: Final[Tally] = Tally()
        self._turns = 0
        self._log = log
        self._dialogue: Final = Dialogue(log, terms.group, terms.consumer)
        self._envelopes = envelopes
        self._admit = admit
        self.claiming: bool = fetching
        self._inherits = False  # what others hold is to be taken over
        self._talk = Talk()
        self._unread: list[Claimed] = []  # answered, not looked at
        self.home: Final[Home] = Home()
        self._gate = Gate(self.home)
        self._quiet = Waiters()
        self._life = CancelScope(shield=True)
        self._seat: Parked | None = None
        self._resting = False  # parked, with room for entries
        self._speaking = self._ending = False
        self._waiting = 0  # claims that nobody has begun
        self._wants = True  # nobody knows what there is: the first turn asks
        self._renew_at = self._watch_at = -inf

    # --------------------------------------------------------------------- what consumers say

    def begin(self, claim: Claim) -> None:
        """Somebody is at work on ``claim``."""
        claim.begun = True
        self._waiting -= 1
        if not self._waiting:
            self._signal()

    def ack(self, claim: Claim) -> None:
        """The entry is done."""
        if self._let_go(claim):
            self.tally.acked += 1
            self._talk.acks.append(claim.id)

    def release(self, claim: Claim) -> None:
        """Give the entry back, this delivery not counted."""
        if self._let_go(claim):
            self.tally.released += 1
            self._talk.releases.append(claim.id)

    def release_later(self, claim: Claim, delay: float) -> None:
        """Give the entry back after a while, this delivery not counted; it stays in hand till then."""
        if delay <= 0:
            self.release(claim)
        elif self.held.get(claim.id) is claim:
            claim.later(delay, lambda: self.release(claim))

    def retry(self, claim: Claim, delay: float) -> None:
        """The entry failed, and may be handed out again after ``delay`` seconds."""
        if self._let_go(claim):
            self.tally.retried += 1
            self._talk.retries[claim.id] = delay

    def bury(self, claim: Claim, reason: str) -> None:
        """The entry is given up."""
        if self._let_go(claim):
            self._tell_dead(claim.id, claim.attempt, reason)

    # ------------------------------------------------------------------ what the owner says

    def resume(self, *, inherits: bool) -> None:
        """Claim from now on; ``inherits``: begin with all that others hold, in order."""
        self.claiming = self._wants = True
        self._inherits = inherits
        self._signal()

    def pause(self) -> None:
        """Claim nothing from now on."""
        self.claiming = self._inherits = False

    def relinquish(self) -> None:
        """Claim nothing from now on, and give back what nobody is at work on."""
        self.pause()
        for claim in [*self.held.values()]:
            if not claim.begun or claim.rests:
                self.release(claim)

    def give_up(self) -> None:
        """Another consumer has, or takes, all that is in hand."""
        for claim in [*self.held.values()]:
            self._lose(claim)

    def finish(self) -> None:
        """End :meth:`run`, which gives back what is in hand; a turn on its way is waited for."""
        self.pause()
        self._ending = True
        if not self._speaking:
            self._life.cancel()

    async def quiet(self) -> None:
        """Wait until nothing is in hand."""
        while self.held:
            await self._quiet.wait()

    # ------------------------------------------------------------------------------- the tasks

    async def prepare(self) -> None:
        """Make the group, if there is none.

        Raises:
            BackendUnavailableError: Nobody answers; later that ends nothing.
        """
        await self._log.create_group(self.terms.group)

    async def run(self, grace: float) -> None:
        """Take one turn after the other until :meth:`finish`, whatever is cancelled meanwhile.

        Args:
            grace: Seconds to give back in what is in hand.
        """
        with self._life:
            while not self._ending:
                if self._must_speak():
                    await self._speak()
                elif self._unread:
                    self._read()
                else:
                    await self._park()
        with move_on_after(grace, shield=True):
            await self._leave()

    async def listen(self) -> None:
        """Wait on the log's side while there is room, and wake the other task."""
        failures = 0
        while True:
            while not self._resting:
                await self._gate
            try:
                woken = await self._log.wait(self.terms.group, timeout=_WAIT)
                failures = 0
            except (BackendError, ValueError):
                failures += 1
                await sleep(_AGAIN.delay(failures, rng=rng()))
                woken = True  # the other task finds out what is wrong
            self._wants |= woken
            self._resting = False  # until it parks again
            self._signal()

    # ----------------------------------------------------------------- private core: speaking

    @property
    def _room(self) -> int:
        """How many entries there is room for."""
        here = len(self.held) + len(self._unread)
        return max(self.terms.prefetch - here, 0) if self.claiming else 0

    @property
    def _share(self) -> int:
        """How many entries to ask for: half of all at most, to be handled while the others come."""
        return min(self._room, (self.terms.prefetch + 1) // 2)

    def _asks(self) -> bool:
        """Whether entries alone are worth a turn: half is free, or nobody has one to begin."""
        room = self._room
        return room > 0 and (not (self._waiting or self._unread) or 2 * room >= self.terms.prefetch)

    def _must_speak(self) -> bool:
        if self._talk or self._inherits:
            return True
        now = monotonic()
        if self.held and now >= self._renew_at:
            return True
        if now >= self._watch_at:
            self._wants = True
        return self._wants and self._asks()

    async def _speak(self) -> None:
        """Take one turn; after an error, find out what is so."""
        self._speaking, inherits = True, self._inherits
        try:
            if inherits:
                await self._take_over()
            else:
                turn = self._compose(self._share if self._wants else 0)
                read = self._read if self._unread else None
                self._apply(turn, await self._dialogue.say(turn, meanwhile=read))
        except (BackendError, ValueError) as error:
            self._read()
            self._speaking, self._inherits = False, self._inherits or (inherits and self.claiming)
            if not self._ending:
                await self._recover(error)
        self._speaking = False
        if not self._turns % _TURN:
            await yield_now()  # a log in memory never waits

    def _read(self) -> None:
        """Take in hand what was claimed, in its order."""
        unread, self._unread = self._unread, []
        for claimed in unread:
            self._adopt(claimed)

    def _compose(self, limit: int, idle: float | None = None) -> GroupTurn:
        """Take what there is to say, and renew what is in hand when it is time."""
        renews = list[str]()
        if (now := monotonic()) >= self._renew_at:
            self._renew_at = now + self.terms.claim_idle / 3
            renews = [*self.held]
        if limit:
            self._wants = False
        talk, self._talk = self._talk, Talk()
        return talk.turn(renews, limit, self.terms.claim_idle if idle is None else idle)

    def _apply(self, turn: GroupTurn, answer: GroupTurned) -> None:
        """Do what the answer says."""
        self._turns += 1
        for each in answer.lost:
            claim = self.held.get(each)
            if claim is not None:
                self._lose(claim)
            elif listening():  # settled here, but too late
                emit(StreamDeliveryLost(self.terms.stream, self.terms.group, each))
        if turn.limit:
            self._watch_at = monotonic() + min(WATCH, self.terms.claim_idle)
            self._wants |= len(answer.claimed) >= turn.limit  # it could have been more
        self._unread = answer.claimed

    async def _take_over(self) -> None:
        """Claim what others of the group hold, at once and in order, before anything fresh."""
        self._read()
        self.give_up()
        self._inherits = False  # unless it is told so again meanwhile
        pending = await self._log.pending(self.terms.group, limit=_INHERITANCE)
        turn = self._compose(len(pending), _AT_ONCE)
        answer = await self._dialogue.say(turn)
        self._apply(turn, answer._replace(claimed=sorted(answer.claimed, key=_place)))
        self._wants = True

    def _adopt(self, claimed: Claimed) -> None:
        """Take an entry in hand, unless it is not to be handled at all."""
        former = self.held.get(claimed.id)
        if former is not None:  # our own claim had ended before we could renew it
            self._lose(former)
        self.tally.claimed += 1
        try:
            message = self.terms.opened(claimed.payload, self._envelopes)
        except CodecError as error:
            self._tell_dead(claimed.id, claimed.deliveries, reason_of(error))
            return
        if claimed.deliveries > self.terms.max_deliveries:
            reason = f"handed out {claimed.deliveries - 1} times, and never settled"
            self._tell_dead(claimed.id, claimed.deliveries - 1, reason)
            return
        if message.attempt != claimed.deliveries or message.deadline is not None:
            message = msgspec.structs.replace(message, attempt=claimed.deliveries, deadline=None)
        claim = self.held[claimed.id] = Claim(claimed.id, message, claimed.deliveries)
        self._waiting += 1
        if self.claiming and not self._inherits:
            self._admit(claim)
        else:  # that ended while the answer was on its way, and others of its key were given back
            self.release(claim)

    # --------------------------------------------------------------- private core: letting go

    def _tell_dead(self, entry: str, attempts: int, reason: str) -> None:
        self.tally.dead += 1
        self._talk.buried[entry] = reason.encode(errors="replace")
        self._signal()
        if listening():
            terms = self.terms
            emit(StreamDeadLettered(terms.stream, terms.group, entry, attempts, reason))

    def _let_go(self, claim: Claim) -> bool:
        """Take ``claim`` out of the hands; False if it is not in them any more."""
        if self.held.get(claim.id) is not claim:
            return False
        if claim.rests:
            claim.disarm()
        self._drop(claim)
        if self._seat is not None:
            self._signal()
        return True

    def _lose(self, claim: Claim) -> None:
        claim.lost = True
        self.tally.lost += 1
        self._drop(claim)
        claim.hurry()
        if listening():
            emit(StreamDeliveryLost(self.terms.stream, self.terms.group, claim.id))

    def _drop(self, claim: Claim) -> None:
        del self.held[claim.id]
        if not claim.begun:
            self.begin(claim)
        if not self.held:
            self._quiet.wake_all()

    # ------------------------------------------------------------------- private core: waiting

    def _signal(self) -> None:
        if self._seat is not None and not self._seat.done():
            self._seat.set_result(None)

    async def _park(self) -> None:
        """Wait until there is something to say."""
        self._seat = seat = self.home.future()
        at = self._renew_at if self.held else inf
        if self._asks():
            at = min(at, self._watch_at)
            self._resting = True
            self._gate.open()
        timer = None if at == inf else call_later(max(at - monotonic(), 0.0), self._signal)
        try:
            await seat
        finally:
            if timer is not None:
                timer.cancel()
            self._seat = None
            self._resting = False

    async def _recover(self, error: Exception) -> None:
        """Ask until the log answers, then bring both sides together."""
        terms, since, failures, held = self.terms, monotonic(), 0, None
        if listening():
            emit(StreamInterrupted(terms.stream, terms.group, reason_of(error)))
        while held is None:
            failures += 1
            await sleep(_AGAIN.delay(failures, rng=rng()))
            try:
                held = await self._dialogue.clear_up()
            except (BackendError, ValueError):
                continue
        if listening():
            emit(StreamResumed(terms.stream, terms.group, monotonic() - since))
        self._reconcile(held)

    def _reconcile(self, held: list[Claimed]) -> None:
        """Lose what is gone, adopt what a lost answer brought."""
        theirs = {each.id: each.deliveries for each in held}
        for claim in [*self.held.values()]:
            if theirs.get(claim.id) != claim.deliveries:
                self._lose(claim)
        self._wants = True
        said = self._talk.entries()
        for claimed in held:
            if claimed.id not in self.held and claimed.id not in said:
                self._adopt(claimed)

    async def _leave(self) -> None:
        """Give back what is in hand and say what is left, until it was heard or time is up."""
        self._read()
        for claim in [*self.held.values()]:
            self.release(claim)
        failures = 0
        while self._dialogue.unclear or self._talk:
            try:
                if self._dialogue.unclear:
                    held = {each.id for each in await self._dialogue.clear_up()}
                    self._talk.releases += held - self._talk.entries()
                turn = self._compose(0)
                self._apply(turn, await self._dialogue.say(turn))
            except (BackendError, ValueError):
                failures += 1
                await sleep(_AGAIN.delay(failures, rng=rng()))


def _place(claimed: Claimed) -> tuple[int, int]:
    return Entry(claimed.id, b"").sort_key
