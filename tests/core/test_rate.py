import math
from typing import Any, cast

import pytest

from aiopatterns.core.rate import Grant, Rate, checked_burst, checked_rate


def test_a_rate_says_itself_and_refuses_what_is_none():
    assert str(Rate(5, per=60)) == "5 per 60 s"
    for amount, per in ((0, 1), (-1, 1), (math.nan, 1), (1, 0), (1, math.inf)):
        with pytest.raises(ValueError, match=r"amount|per"):
            Rate(amount, per)


def test_a_grant_is_a_plain_record():
    allowed, retry_after, remaining, reset_after = Grant(False, 0.5, 0, 1.0)
    assert (allowed, retry_after, remaining, reset_after) == (False, 0.5, 0, 1.0)


def test_what_is_no_rate_is_refused():
    assert checked_rate(rate := Rate(5)) is rate
    with pytest.raises(TypeError, match=r"^rate must be a Rate, as in Rate\(100, per=1.0\), not 5"):
        checked_rate(cast("Any", 5))


def test_a_burst_is_the_amount_unless_told_otherwise():
    assert checked_burst(None, Rate(5)) == 5
    assert checked_burst(None, Rate(0.1)) == 1
    assert checked_burst(2, Rate(5)) == 2
    for wrong in (0, 0.5, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="burst must be"):
            checked_burst(wrong, Rate(5))
    with pytest.raises(TypeError, match="burst must be"):
        checked_burst(cast("Any", "5"), Rate(5))
