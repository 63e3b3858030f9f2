"""The judge: what becomes of a claim, by how its block has ended."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.core.errors import Reject, RetryLater
from aiopatterns.messaging import Envelopes, Message
from aiopatterns.messaging.claim import Claim
from aiopatterns.messaging.fetcher import Fetcher
from aiopatterns.messaging.fetchterms import FetchTerms
from aiopatterns.messaging.judge import Judge
from aiopatterns.resilience.backoff import Constant

TERMS = FetchTerms(
    stream="s", group="g", consumer="c", prefetch=10, max_deliveries=2, claim_idle=30.0
)


@pytest.mark.parametrize(
    ("error", "attempt", "figure"),
    [
        (None, 1, "acked"),
        (ValueError("x"), 1, "retried"),
        (ValueError("x"), 2, "dead"),
        (Reject("x"), 1, "dead"),
        (RetryLater(0.0), 2, "released"),
        (GeneratorExit(), 2, "released"),
    ],
    ids=["none", "error", "last", "reject", "later", "exit"],
)
async def test_each_ending(error: Any, attempt: int, figure: str):
    fetcher = Fetcher(open_backend("memory://").log("s"), TERMS, Envelopes(), admit=print)
    judge = Judge(fetcher, Constant(1.0))
    claim = fetcher.held["1-0"] = Claim("1-0", Message(type="t"), attempt)
    assert judge.holds(claim)
    judge.begin(claim)
    judge.decide(claim, error)
    assert getattr(fetcher.tally, figure) == 1
    assert not judge.holds(claim)
    judge.decide(claim, error)  # it is not in hand any more
    assert getattr(fetcher.tally, figure) == 1
