"""Every decoder of what comes from outside, fed what nobody should send.

Each takes it or raises its documented error, and nothing else: no other error, no second of work,
no memory beyond what was sent. A few inputs each here; `make stress` goes on for FUZZ_SECONDS each.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.fuzzing.of_shared import TARGETS as SHARED
from tests.fuzzing.of_web import TARGETS as WEB
from tests.fuzzing.of_work import TARGETS as WORK
from tests.fuzzing.target import Target, attack, withstand_bombs

TARGETS = (*SHARED, *WORK, *WEB)
BY_ID = {each.id: each for each in TARGETS}
MANY = 150

pytestmark = pytest.mark.untraced


@pytest.fixture(params=BY_ID)
def target(request: pytest.FixtureRequest) -> Target:
    return BY_ID[request.param]


def test_every_target_has_a_name_of_its_own():
    assert len(BY_ID) == len(TARGETS)


def test_what_is_valid_is_taken(target):
    for shape in target.shapes:
        assert target.accepts(shape.write(shape.value)), shape
    for sample in target.samples:
        assert target.accepts(sample), sample


def test_only_the_documented_error_leaves(target):
    attack(target, seed=0, many=MANY)


def test_what_promises_much_gets_nothing(target):
    withstand_bombs(target)


@pytest.mark.stress
@pytest.mark.timeout(1_800)
def test_no_input_of_many_breaks_it(target):
    seconds = float(os.environ.get("FUZZ_SECONDS", "15"))
    seed = int(os.environ.get("FUZZ_SEED", "0")) or time.time_ns() % 1_000_000
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seed += 1
        attack(target, seed=seed, many=2_000)
