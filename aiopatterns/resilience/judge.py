"""What a call says about the other side: three classes of outcomes.

============  ==================================================  =============================
outcome       means                                               by default
============  ==================================================  =============================
``failure``   the other side is not well                          any ``Exception``
``success``   the other side has answered, whatever the answer    any result
``ignore``    nothing can be said; no count, and a permit of a    ``RejectedError``: a policy
              half-open circuit is given back                     of ours, further inside, did
                                                                  not even let the call start
============  ==================================================  =============================

A *judge* is a function of the user that decides otherwise. It is asked about every result and
every ``Exception``, never about a cancellation, which is ``ignore`` without a question, as are
``KeyboardInterrupt``, ``SystemExit`` and ``GeneratorExit``::

    def judge(found: object) -> Outcome:
        if isinstance(found, HTTPStatusError):
            return "failure" if found.status >= 500 else "success"
        return "failure" if isinstance(found, Exception) else "success"

A judge that raises, or gives anything else, is a defect of the program: its error leaves, and the
call is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeAlias

from aiopatterns.core.errors import RejectedError
from aiopatterns.core.validate import choice, function

__all__ = ["OUTCOMES", "Judge", "Outcome", "check_judge", "outcome_of"]

Outcome: TypeAlias = Literal["success", "failure", "ignore"]
Judge: TypeAlias = Callable[[Any], Outcome]

OUTCOMES: tuple[Outcome, ...] = ("success", "failure", "ignore")


def check_judge(judge: Judge | None) -> Judge | None:
    """Return ``judge`` if it is None or a plain function."""
    if judge is not None and iscoroutinefunction(function("judge", judge)):
        msg = f"judge must be a plain function, not the async function {judge!r}"
        raise TypeError(msg)
    return judge


def outcome_of(judge: Judge | None, found: object) -> Outcome:
    """Return what a result or an ``Exception`` says about the other side.

    Raises:
        ValueError: The judge gave something else than an outcome.
    """
    if judge is not None:
        return choice("the outcome of the judge", judge(found), OUTCOMES)
    if isinstance(found, RejectedError):
        return "ignore"
    return "failure" if isinstance(found, Exception) else "success"
