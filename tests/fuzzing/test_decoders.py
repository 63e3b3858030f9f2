"""Every decoder of what comes from outside, fed what nobody should send.

Each takes it or raises its documented error, and nothing else: no other error, no second of work,
no memory beyond what was sent. A few inputs each here; `make stress` goes on for FUZZ_SECONDS each.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import aiopatterns
from tests.fuzzing.of_shared import TARGETS as SHARED
from tests.fuzzing.of_web import LOOP
from tests.fuzzing.of_web import TARGETS as WEB
from tests.fuzzing.of_work import TARGETS as WORK
from tests.fuzzing.target import Target, attack, withstand_bombs

ROOMS = {"shared": SHARED, "work": WORK, "web": WEB}
TARGETS = (*SHARED, *WORK, *WEB)
BY_ID = {each.id: each for each in TARGETS}
MANY = 150

pytestmark = pytest.mark.untraced


@pytest.fixture(scope="module", autouse=True)
def _loop() -> Iterator[None]:
    yield
    while LOOP:
        LOOP.pop().close()


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


@pytest.mark.promise("fault-09-any-bytes")
def test_only_the_documented_error_leaves(target):
    attack(target, seed=0, many=MANY)


@pytest.mark.promise("fault-09-any-bytes")
def test_what_promises_much_gets_nothing(target):
    withstand_bombs(target)


@pytest.mark.stress
@pytest.mark.timeout(3_600)
@pytest.mark.promise("fault-09-any-bytes")
@pytest.mark.parametrize("room", ROOMS)
def test_no_input_of_many_breaks_a_decoder(room, figures):
    seconds = float(os.environ.get("FUZZ_SECONDS", "15"))
    seed = int(os.environ.get("FUZZ_SEED", "0")) or time.time_ns() % 1_000_000
    inputs = accepted = 0
    for target in ROOMS[room]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seed += 1
            accepted += attack(target, seed=seed, many=500)
            inputs += 500
    figures.record("decoders", len(ROOMS[room]), f"{seconds:g} s each, seeds up to {seed}")
    figures.record(
        "inputs", inputs, f"{accepted} taken, the others refused by the documented error"
    )
    figures.record("other errors, hangs, or more than two seconds", 0)


# ------------------------------------------------------------------------------ is the table whole?

# What reads bytes: the codecs' decoders, numbers and structs, JSON, TOML, addresses, forms.
READING = re.compile(
    r"\b(?:JSON|MSGPACK|codec|c)\.decod(?:e|er)\(|from_bytes\(|\bunpack(?:_from)?\(|json\.loads"
    r"|tomllib\.loads|urlsplit\(|parse_qs|msgspec\.convert\(|fromhex\(|b64decode|Http\w*Parser\("
    r"|extract_compact\("
)
# Those that have nothing of a stranger's to read, or nothing but what a fuzzed module reads for them.
OTHERS = {
    "cache.tiers": "a value, by a codec; what it refuses is loaded anew",
    "cluster.inbox": "a letter, by a codec; what it refuses is told as an event",
    "core.hashing": "its own hashes",
    "data.saga": "a context, by a codec; a saga that it refuses is stuck",
    "data.sqlidempotency": "an outcome, by a codec",
    "data.syncpass": "data.checkpoint",
    "flow.checkpoint": "a result, by a codec",
    "flow.child": "what the parent has pickled, through a socket that they alone have",
    "flow.executors": "the same from the other end",
    "gateway.app": "addresses of key sets, checked by gateway.jwt",
    "gateway.site": "addresses of routes, checked by gateway.routing",
    "processor.analysis": "processor.tokens",
    "processor.fleet": "processor.tokens",
    "processor.local": "processor.tokens",
    "processor.runjobs": "processor.tokens",
    "testing.golden": "files of tests",
    "testing.proxy": "an address of a test",
}


def code_of(path: Path) -> str:
    """A module without its documentation and comments."""
    return re.sub(r'"""[^"]*?"""|#.*', "", path.read_text("utf-8"))


def test_every_module_that_decodes_is_in_the_table():
    package = Path(aiopatterns.__file__).parent
    reading = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if READING.search(code_of(path))
    }
    fuzzed = {module for target in TARGETS for module in target.modules}
    assert not sorted(reading - fuzzed - set(OTHERS))
    assert not sorted(set(OTHERS) - reading)
