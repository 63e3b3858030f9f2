"""What a pipeline is a pipeline of, at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from aiopatterns.flow.executors import Processes
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.flow.run import PipelineRun
from aiopatterns.flow.stage import DeadItem, DeadLetter
from aiopatterns.flow.tally import PipelineReport, StageStatistics
from aiopatterns.resilience.retry import Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


async def parse(line: str) -> int:
    return int(line)


def parse_here(line: str) -> int:
    return int(line)


def halves(x: int) -> list[float]:
    return [x / 2, x / 2]


def halves_lazily(x: int) -> Iterator[float]:
    yield x / 2


async def halves_slowly(x: int) -> AsyncIterator[float]:
    yield x / 2


async def halves_later(x: int) -> list[float]:
    return [x / 2]


async def save(x: float) -> None: ...


async def bury(dead: DeadItem) -> None: ...


lines = Pipeline(["1", "2"])
assert_type(lines, Pipeline[str])
assert_type(lines.map(parse), Pipeline[int])
assert_type(lines.map(parse_here), Pipeline[int])
assert_type(lines.map(lambda line: len(line) + 1), Pipeline[int])
assert_type(lines.map(parse_here, executor=Processes(2)), Pipeline[int])
assert_type(
    lines.map(
        parse,
        workers=4,
        key=lambda line: line[0],
        ordered=False,
        retry=Retry(on=OSError),
        timeout=1.0,
        on_error=DeadLetter(bury),
    ),
    Pipeline[int],
)

numbers = lines.map(parse)
assert_type(numbers.filter(lambda x: x > 1), Pipeline[int])
assert_type(numbers.flat_map(halves), Pipeline[float])
assert_type(numbers.flat_map(halves_lazily), Pipeline[float])
assert_type(numbers.flat_map(halves_slowly), Pipeline[float])
assert_type(numbers.flat_map(halves_later), Pipeline[float])
assert_type(numbers.batch(3, within=0.2), Pipeline[list[int]])
assert_type(numbers.batch(3).flat_map(lambda batch: batch), Pipeline[int])
assert_type(numbers.named("numbers"), Pipeline[int])
assert_type(
    numbers.broadcast(lambda p: p.map(float), lambda p: p.flat_map(halves)), Pipeline[float]
)
assert_type(numbers.broadcast(lambda p: p.filter(bool), lambda p: p), Pipeline[int])
assert_type(numbers.open(), PipelineRun[int])
assert_type(numbers.to_mermaid(), str)


async def use() -> None:
    report = await numbers.flat_map(halves).run(into=save)
    assert_type(report, PipelineReport)
    assert_type(report.stages[0], StageStatistics)
    assert_type(report.stages[0].p99, float | None)
    async with numbers.open() as results:
        async for x in results:
            assert_type(x, int)
        assert_type(results.statistics(), PipelineReport)
