"""What is fuzzed, and how a run of it is judged."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from random import Random
from time import process_time
from typing import TYPE_CHECKING, Any

from aiopatterns.core.errors import CodecError
from tests.fuzzing.mutation import BOMBS, Shape, mutants

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

__all__ = ["SECONDS", "Broken", "Target", "attack", "driven", "text", "withstand_bombs"]

#: CPU seconds for one input of at most 128 KiB; a slow machine is given the benefit of the doubt.
SECONDS = 2.0
#: Bytes that may be held at a time for each byte of input, and for none.
FACTOR, FREE = 150, 2 << 20


class Broken(AssertionError):
    """A decoder did with some bytes what it must not."""


@dataclass(frozen=True)
class Target:
    """A decoder.

    Attributes:
        module: Where it stands, inside the package; where several do one thing, several.
        decode: Takes bytes of any origin.
        samples: What it takes.
        shapes: The same as values.
        hostile: What it refuses, or should.
        errors: What it may raise; nothing else may leave.
        name: Tells it from others of its module.
    """

    module: str
    decode: Callable[[bytes], object]
    samples: tuple[bytes, ...] = ()
    shapes: tuple[Shape, ...] = ()
    hostile: tuple[bytes, ...] = ()
    errors: tuple[type[Exception], ...] = (CodecError,)
    name: str = ""

    @property
    def id(self) -> str:
        """How it is called."""
        return f"{self.module}:{self.name}" if self.name else self.module

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that it enters."""
        return tuple(self.module.split("+"))

    def accepts(self, data: bytes) -> bool:
        """Whether ``data`` is decoded; False if it is refused as it should be.

        Raises:
            Broken: It was not refused as it should be, or took too long.
        """
        began = process_time()
        accepted = True
        try:
            self.decode(data)
        except self.errors:
            accepted = False
        except BaseException as error:
            raise Broken(f"{self.id}: {type(error).__name__}: {error!s:.200}") from error
        if process_time() - began > SECONDS:
            raise Broken(f"{self.id}: {process_time() - began:.1f} s for {len(data)} bytes")
        return accepted


def attack(target: Target, *, seed: int, many: int) -> int:
    """Give ``many`` inputs to a decoder; return how many it accepted.

    Raises:
        Broken: It has failed; says by which bytes, made as short as could be.
    """
    accepted = 0
    for number, data in zip(range(many), _inputs(target, seed), strict=False):
        try:
            accepted += target.accepts(data)
        except Broken as error:
            least = _shortened(target, data, type(error.__cause__))
            shown = (
                f"bytes.fromhex({least.hex()!r})" if len(least) <= 2_048 else f"{len(least)} bytes"
            )
            error.add_note(f"input {number} of seed {seed}: {shown}\n{least[:300]!r}")
            raise
    return accepted


def withstand_bombs(target: Target) -> None:
    """Give a decoder what promises much, also inside of what it takes, and watch its memory.

    Raises:
        Broken: It has failed, or held too much.
    """
    wraps = {shape.wrap for shape in target.shapes}
    inside = [wrap(bomb) for wrap in wraps for bomb in BOMBS]
    behind = [sample[: len(sample) // 2] + bomb for sample in target.samples[:1] for bomb in BOMBS]
    for data in (*BOMBS, *target.hostile, *inside, *behind):
        tracemalloc.start()
        try:
            target.accepts(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if peak > FREE + FACTOR * len(data):
            raise Broken(f"{target.id}: {peak} bytes held for {len(data)}: {data[:60]!r}")


def _inputs(target: Target, seed: int) -> Iterator[bytes]:
    return mutants(Random(f"{target.id} {seed}"), (*target.samples, *target.hostile), target.shapes)


def _shortened(target: Target, data: bytes, kind: type) -> bytes:
    """Take pieces away as long as the same goes wrong."""
    size = len(data) // 2
    tries = 400
    while size and tries > 0:
        for at in range(0, len(data), size):
            tries -= 1
            shorter = data[:at] + data[at + size :]
            if tries > 0 and _breaks(target, shorter, kind):
                data = shorter
                break
        else:
            size //= 2
    return data


def _breaks(target: Target, data: bytes, kind: type) -> bool:
    try:
        target.accepts(data)
    except Broken as error:
        return type(error.__cause__) is kind
    return False


def driven(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise AssertionError("it waits for something")


def text(data: bytes) -> str:
    """Return bytes as the text that they could have come as, halves of characters included."""
    return data.decode("utf-8", "surrogateescape")
