"""The fuzzer finds the mistakes that decoders make, and the same ones again."""

from __future__ import annotations

from itertools import islice
from random import Random
from typing import Any

import pytest

from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError
from tests.fuzzing import target as judging
from tests.fuzzing.mutation import Shape, mutants
from tests.fuzzing.target import Broken, Target, attack, withstand_bombs

pytestmark = pytest.mark.untraced


def cut_off(data: bytes) -> bytes:
    """Believes that what is announced has come."""
    return bytes((data[1 + data[0]],))


def no_text(data: bytes) -> str:
    return data.decode()


def unhashable(data: bytes) -> Any:
    return dict.fromkeys(MSGPACK.decode(data, list[Any]), 1)


def beyond_64_bits(data: bytes) -> bytes:
    found: int = MSGPACK.decode(data, int)
    return found.to_bytes(7, "big")


def recursive(data: bytes) -> int:
    return 1 + recursive(data[1:]) if data[:1] == b"[" else 0


MISTAKES = [
    (cut_off, (b"\x02abc",), (), IndexError),
    (no_text, ("é".encode(),), (), UnicodeDecodeError),
    (unhashable, (), (Shape([1, "a"]),), TypeError),
    (beyond_64_bits, (), (Shape(17),), OverflowError),
    (recursive, (b"[[",), (), RecursionError),
]


@pytest.mark.parametrize(("decode", "samples", "shapes", "kind"), MISTAKES)
def test_a_mistake_is_found_and_made_short(decode, samples, shapes, kind):
    target = Target("test", decode, samples, shapes)
    with pytest.raises(Broken) as caught:
        attack(target, seed=1, many=300)
    assert isinstance(caught.value.__cause__, kind)
    assert "of seed 1: " in caught.value.__notes__[0]
    if kind is not RecursionError:
        assert len(caught.value.__notes__[0]) < 120


def test_memory_that_was_only_promised_is_found():
    target = Target("test", lambda data: bytearray(int.from_bytes(data[:4], "big") % (1 << 24)))
    with pytest.raises(Broken, match="bytes held for"):
        withstand_bombs(target)


def test_time_without_end_is_found(monkeypatch):
    monkeypatch.setattr(judging, "SECONDS", 0.005)
    with pytest.raises(Broken, match="s for 10000 bytes"):
        Target("test", lambda data: [data.count(b"b", at) for at in range(len(data))]).accepts(
            b"a" * 10_000
        )


def test_the_same_seed_is_the_same_inputs():
    def some(seed: int) -> list[bytes]:
        return [*islice(mutants(Random(seed), (b"sample",), (Shape({"a": [1]}),)), 50)]

    assert some(1) == some(1)
    assert some(1) != some(2)


def test_what_is_refused_as_documented_is_no_mistake():
    def decode(data: bytes) -> None:
        raise CodecError("no")

    assert attack(Target("test", decode, (b"x",)), seed=0, many=50) == 0
