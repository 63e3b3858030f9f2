"""Three classes of outcomes."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.errors import BulkheadFullError, RateLimitedError, TimeoutExceededError
from aiopatterns.resilience.judge import check_judge, outcome_of


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (1, "success"),
        (None, "success"),
        (OSError(), "failure"),
        (ValueError(), "failure"),
        (TimeoutExceededError(timeout=1), "failure"),
        (ExceptionGroup("", [OSError()]), "failure"),
        (RateLimitedError(), "ignore"),
        (BulkheadFullError(), "ignore"),
    ],
    ids=repr,
)
def test_without_a_judge(found, outcome):
    assert outcome_of(None, found) == outcome


def test_a_judge_decides_about_everything():
    seen = []

    def judge(found):
        seen.append(found)
        return "ignore"

    error = OSError()
    for found in (1, error, RateLimitedError()):
        assert outcome_of(judge, found) == "ignore"
    assert seen[:2] == [1, error]
    assert len(seen) == 3


def test_a_judge_that_gives_something_else_is_a_defect():
    with pytest.raises(ValueError, match=r"outcome of the judge must be one of .*, not True"):
        outcome_of(wrong(lambda found: True), 1)


@pytest.mark.promise("resilience-bad-input")
async def test_what_is_no_judge_is_refused():
    async def judge(found):
        return "success"

    with pytest.raises(TypeError, match=r"^judge must be a function, not 3"):
        check_judge(wrong(3))
    with pytest.raises(TypeError, match=r"^judge must be a plain function, not the async"):
        check_judge(wrong(judge))
    assert check_judge(None) is None
