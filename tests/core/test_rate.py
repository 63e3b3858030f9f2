import math

import pytest

from aiopatterns.core.rate import Grant, Rate


def test_a_rate_says_itself_and_refuses_what_is_none():
    assert str(Rate(5, per=60)) == "5 per 60 s"
    for amount, per in ((0, 1), (-1, 1), (math.nan, 1), (1, 0), (1, math.inf)):
        with pytest.raises(ValueError, match=r"amount|per"):
            Rate(amount, per)


def test_a_grant_is_a_plain_record():
    allowed, retry_after, remaining, reset_after = Grant(False, 0.5, 0, 1.0)
    assert (allowed, retry_after, remaining, reset_after) == (False, 0.5, 0, 1.0)
