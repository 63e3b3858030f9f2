"""Hedges: ask a second time when the first answer is late, and take whichever comes first.

One replica in a hundred is slow at any moment, for reasons of its own. A caller that waits for it
is slow too; one that asks another after a while is not, and if "a while" is the time in which 95
of 100 answers have come, it costs five percent more load::

    primary  ----------------------------x        cancelled, and awaited
                 after
    hedge        |------------> answer            the first success is the result

The primary runs in the caller's own task, hedges in tasks of one group around it. A hedge begins

* ``after`` seconds after the call before it began, or
* at once when a call fails with an error that ``on`` names.

It does not begin if ``max_extra`` have begun, the shared budget has no extra call left, or the
deadline bound here has passed.

Guarantees:

* The first success wins. An error that ``on`` does not name is an answer too and ends the race.
* Before the call returns, every other has been cancelled and has ended; nothing runs on behalf of
  nobody, however the caller itself is cancelled, also twice.
* If all fail, what leaves is the error of the primary, the same instance, with the others as its
  notes.
* A success that came too late goes to ``discard``, so that a connection can be closed; also the
  winner's, if the caller was cancelled while the losers ended.
* Hedges see the context variables as they were when the call began.

Not guaranteed: that it is safe to run twice at once. The caller says so by ``idempotent=True``. A
function that refuses to be cancelled keeps its caller waiting.

Source: Dean and Barroso, "The Tail at Scale" (CACM, 2013): hedged requests, after the 95th
percentile; a failure starts the next at once as in Polly v8.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, final

from aiopatterns.core.validate import async_function, count, instance, non_negative
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.matching import Matcher
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.race import Race, Terms

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from aiopatterns.resilience.matching import On
    from aiopatterns.resilience.race import Discard

__all__ = ["Hedge"]

P = ParamSpec("P")
T = TypeVar("T")


@final
class Hedge(Policy):
    """Ask again beside a call that is late; the first success wins.

    Args:
        after: Seconds after which a call is late; 0 begins all at once. None finds out: the 95th
            percentile of the last 500 to 1000 calls that succeeded, a millisecond at least, and no
            hedge but after a failure while fewer than 20 are known. A primary that lost counts with
            the time at which it was cancelled, so that hedging does not make itself look needless.
        idempotent: That the function may run twice at once, for the same arguments, with the
            effect of once. True is the only value there is; it stands in the code as a promise.
        max_extra: How many hedges a call may have, at least 1.
        on: Which errors start the next hedge at once instead of ending the call: an exception
            type, a tuple of them, or a predicate of the error. None is every ``Exception`` but
            refusals by our own policies.
        discard: Async function of a result that came too late; it runs before the call returns,
            shielded, for at most a second. What it raises is an event, no error.
        budget: A bound on hedges that is shared with other policies, retries too.

    Of a stream the opening is hedged, that is until it has given its first item; a stream that
    opened too late is closed, and ``discard`` is not asked.

    Example::

        @Hedge(0.05, idempotent=True)
        async def lookup(key: str) -> bytes: ...
    """

    __slots__ = ("_terms",)

    kind = "hedge"

    def __init__(
        self,
        after: float | None = None,
        *,
        idempotent: Literal[True] = True,
        max_extra: int = 1,
        on: On | None = None,
        discard: Discard | None = None,
        budget: Budget | None = None,
    ) -> None:
        _check_idempotent(idempotent)
        self._terms = Terms(
            after if after is None else non_negative("after", after),
            count("max_extra", max_extra),
            Matcher(Exception if on is None else on, refusals=False).matches,
            discard if discard is None else async_function("discard", discard),
            budget if budget is None else instance("budget", budget, Budget, "a Budget"),
        )

    def __repr__(self) -> str:
        after = self._terms.after
        return f"Hedge({'p95' if after is None else f'{after:g}'})"

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that runs ``fn`` as a race with its own hedges."""
        terms = self._terms

        async def hedged(*args: P.args, **kwargs: P.kwargs) -> T:
            return await Race(terms, partial(fn, *args, **kwargs)).run()

        return hedged

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return a stream function whose opening is a race; what opens too late is closed."""
        terms = self._terms
        closing = Hedge()
        closing._terms = Terms(terms.after, terms.max_extra, terms.handles, _close, terms.budget)
        return Policy.wrap_stream(closing, fn)

    def calls(self) -> float:
        """Return the primary and its hedges."""
        return 1.0 + self._terms.max_extra

    def bound(self, inner: float) -> float:
        """Return the most seconds: each hedge begins as late as it can, and the last one is slow."""
        after = math.inf if self._terms.after is None else self._terms.after
        return inner + self._terms.max_extra * min(after, inner)


async def _close(opened: tuple[AsyncGenerator[Any], tuple[Any, ...]]) -> None:
    """Close a stream that opened too late."""
    await opened[0].aclose()


def _check_idempotent(idempotent: object) -> None:
    if idempotent is True:
        return
    msg = (
        f"idempotent must be True, not {idempotent!r}: a hedged function runs twice at once; do not"
        " hedge one for which that is not the same as once"
    )
    raise ValueError(msg) if isinstance(idempotent, bool) else TypeError(msg)
