"""Key sets of issuers (JWKS): one for each address, kept fresh, and never in the way.

An issuer changes its keys whenever it likes, and signs with the new one at once. So an unknown name
of a key is no reason to refuse a token before the set was fetched once more::

    token, kid known     --> its key                                  no waiting, no fetch
    token, kid unknown   --> one fetch for all who wait for one -----> its key, or refused
                               at most five at once, then one in 10 s
    every five minutes   --> fetched anew, in the background           removed keys are gone then
    fetch fails          --> the keys that are known hold for a day    unknown kid: 503, not 401

Guarantees:

* No token is refused for a key that the issuer published before the token came: whoever waits gets
  the answer to a fetch that was begun after it asked.
* One fetch at a time, whoever asks, and a bounded rate of them: names of keys come from strangers.
* A name that a fetch did not bring is refused at once for ten seconds.
* An issuer that is away costs no request a wait, except those that only it could answer.

Not guaranteed: that a token without a ``kid``, or with an old one, is accepted after its issuer put
a new key in the old one's place; that is seen with the next fetch in the background.

Source: RFC 7517 (JWK), OpenID Connect Core section 10.1.1 (rotation of signing keys).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, final

from anyio import fail_after

from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.core.flight import Flights
from aiopatterns.core.rate import Rate
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.resilience.backoff import Exponential, Proportional
from aiopatterns.resilience.ratelimit import GCRA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from aiopatterns.gateway.signatures import Key, KeySource, SigningKeys

__all__ = [
    "ABSENT_FOR",
    "KEPT_FOR",
    "MOST_WAITING",
    "REFRESH_EVERY",
    "GatewayKeysLost",
    "GatewayKeysRecovered",
    "GatewayKeysRotated",
    "Jwks",
    "KeyDirectory",
]

#: Seconds between two fetches in the background, more or less.
REFRESH_EVERY: Final = 300.0
#: Seconds that keys hold while they cannot be fetched.
KEPT_FOR: Final = 86_400.0
#: Seconds that a name is refused at once after a fetch did not bring it.
ABSENT_FOR: Final = 10.0
#: Requests that wait for a fetch at most; more are asked to come again.
MOST_WAITING: Final = 1_000
# Names that are remembered as absent at most.
_MOST_ABSENT: Final = 1_024
# Fetches at once, and afterwards one in so many seconds.
_BURST: Final = 5
_PACE: Final = Rate(1, per=10.0)
# Seconds that a fetch may take, and until the next one after a failure.
_PATIENCE: Final = 10.0
_RETRY: Final = Exponential(initial=1.0, factor=2, cap=30.0, jitter=Proportional(0.1))
_JITTER: Final = 0.1

Fetch: TypeAlias = "Callable[[], Awaitable[bytes | KeySource]]"
"""What brings a key set: its JSON, or the same as a mapping."""


@dataclass(frozen=True, slots=True)
class GatewayKeysLost(Event):
    """The keys of an issuer cannot be fetched; those that are known hold on.

    Args:
        issuer: The address of the key set.
        error: What was wrong.
    """

    name: ClassVar[str] = "aiopatterns.gateway.keys_lost"
    level: ClassVar[str] = "warning"

    issuer: str
    error: str


@dataclass(frozen=True, slots=True)
class GatewayKeysRecovered(Event):
    """The keys of an issuer could be fetched again.

    Args:
        issuer: The address of the key set.
    """

    name: ClassVar[str] = "aiopatterns.gateway.keys_recovered"

    issuer: str


@dataclass(frozen=True, slots=True)
class GatewayKeysRotated(Event):
    """An issuer has other keys than before.

    Args:
        issuer: The address of the key set.
        added: The names of keys that are new.
        removed: The names of keys that are gone.
    """

    name: ClassVar[str] = "aiopatterns.gateway.keys_rotated"

    issuer: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


@final
class Jwks:
    """The keys of one issuer.

    Args:
        fetch: Brings them.
        name: What the issuer is called in events.

    It works on its own: then the request that finds the set too old fetches it. With
    :meth:`tend` running, none has to.
    """

    __slots__ = (
        "_absent",
        "_due",
        "_failures",
        "_fetch",
        "_fetched",
        "_flights",
        "_keys",
        "_pace",
        "_serial",
        "_started",
        "_tended",
        "name",
    )

    def __init__(self, fetch: Fetch, *, name: str) -> None:
        self.name: str = name
        self._fetch = fetch
        self._keys: SigningKeys | None = None
        self._fetched = 0.0
        # When it is to be fetched next: by somebody who needs it, or after a failure.
        self._due = 0.0
        self._failures = 0
        self._tended = False
        # Fetches that were begun, and the one that brought the keys.
        self._started = self._serial = 0
        self._flights: Flights[None, bool] = Flights()
        self._pace = GCRA(_PACE, burst=_BURST)
        self._absent: OrderedDict[tuple[str | None, str], float] = OrderedDict()

    async def find(self, kid: str | None, algorithm: str) -> list[Key]:
        """Return the keys that may have signed a token; none if there is no such key.

        Args:
            kid: The name of the key, or None.
            algorithm: Of the signature.

        Raises:
            RequestRefusedError: It cannot be told, for the keys cannot be fetched (503).

        Cancellation: leaves a fetch to those who wait for it as well; the last one ends it.
        """
        found = self._known(kid, algorithm)
        if found and (self._tended or monotonic() < self._due):
            return found
        if not found and self._absent.get((kid, algorithm), 0.0) > monotonic():
            return found
        asked = self._started
        # A fetch that was under way already may have been answered before the key was there.
        while self._serial <= asked:
            if not await self._renewed():
                break
            found = self._known(kid, algorithm)
            if found:
                return found
        if not found and self._failures:
            raise self._unknown()
        if not found:
            self._miss(kid, algorithm)
        return found

    async def tend(self) -> None:
        """Keep the keys fresh until cancelled; a fetch that fails is tried again.

        Cancellation: leaves the keys as they are.
        """
        self._tended = True
        try:
            while True:
                await self._flights.run(None, self._renew)
                await sleep(max(0.0, self._due - monotonic()))
        finally:
            self._tended = False

    def _known(self, kid: str | None, algorithm: str) -> list[Key]:
        if self._keys is None:
            return []
        if monotonic() - self._fetched > KEPT_FOR:
            self._keys = None
            return []
        return self._keys.candidates(kid, algorithm)

    async def _renewed(self) -> bool:
        """Join the fetch that is under way, or begin one; whether there was an answer."""
        if self._failures and monotonic() < self._due:
            return False
        flight = self._flights.get(None)
        if flight is not None and flight.waiters >= MOST_WAITING:
            raise self._unknown()
        return await self._flights.run(None, self._renew)

    async def _renew(self) -> bool:
        """Fetch the keys when that is allowed; whether it was possible."""
        await self._pace.acquire()
        from aiopatterns.gateway.signatures import SigningKeys

        self._started = serial = self._started + 1
        try:
            with fail_after(_PATIENCE):
                document = await self._fetch()
            keys = SigningKeys.published(document)
        except Exception as error:
            self._fail(error)
            return False
        self._serial = serial
        self._take(keys)
        return True

    def _take(self, keys: SigningKeys) -> None:
        before, self._keys = self._keys, keys
        failures, self._failures = self._failures, 0
        self._fetched = monotonic()
        self._due = self._fetched + REFRESH_EVERY * (1 + _JITTER * (2 * rng().random() - 1))
        if listening():
            if failures:
                emit(GatewayKeysRecovered(self.name))
            if before is not None and before.kids != keys.kids:
                added, removed = keys.kids - before.kids, before.kids - keys.kids
                emit(GatewayKeysRotated(self.name, (*sorted(added),), (*sorted(removed),)))

    def _fail(self, error: Exception) -> None:
        self._failures += 1
        self._due = monotonic() + _RETRY.delay(self._failures, rng=rng())
        if self._failures == 1 and listening():
            emit(GatewayKeysLost(self.name, f"{type(error).__name__}: {error}"))

    def _miss(self, kid: str | None, algorithm: str) -> None:
        """Remember that there is no such key."""
        self._absent[kid, algorithm] = monotonic() + ABSENT_FOR
        self._absent.move_to_end((kid, algorithm))
        if len(self._absent) > _MOST_ABSENT:
            self._absent.popitem(last=False)

    def _unknown(self) -> RequestRefusedError:
        wait = max(1, round(self._due - monotonic() + 0.5))
        return RequestRefusedError(
            "tokens cannot be checked at the moment",
            status=503,
            headers=[(b"retry-after", b"%d" % min(wait, 30))],
        )


@final
class KeyDirectory:
    """The key sets of a gateway by their addresses, so that routes share them.

    Args:
        fetch: Gets a document.
    """

    __slots__ = ("_fetch", "_sets", "_tasks")

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]]) -> None:
        self._fetch = fetch
        self._sets: dict[str, Jwks] = {}
        self._tasks: TaskGroup | None = None

    def of(self, url: str) -> Jwks:
        """Return the key set at an address; the same one for the same address."""
        jwks = self._sets.get(url)
        if jwks is None:
            jwks = self._sets[url] = Jwks(lambda: self._fetch(url), name=url.partition("?")[0])
            self._tend(jwks)
        return jwks

    def open(self, tasks: TaskGroup) -> None:
        """Keep all sets fresh, those of later on as well, by tasks of this group."""
        self._tasks = tasks
        for each in self._sets.values():
            self._tend(each)

    def close(self) -> None:
        """Start no more tasks; those of the group end with it."""
        self._tasks = None

    def _tend(self, jwks: Jwks) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(jwks.tend)
