"""``aiopatterns run``: the data-processing system on real files.

Everything that can be refused is refused before any work: a backend or an executor that this
command does not have, a path that cannot be read, a report or a trace that cannot be written.
Then the system runs under a view of it, and at the end the result is printed, as text or as JSON.
"""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING

import anyio

from aiopatterns.backends.url import parse
from aiopatterns.cli.exits import DONE, FAILED, UsageError, complain, ended_by_sigterm
from aiopatterns.cli.screen import view_for
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.outcome import Err, Ok
from aiopatterns.flow.executors import Inline, Processes
from aiopatterns.flow.process import processors
from aiopatterns.processor import units
from aiopatterns.processor.corpus import Corpus
from aiopatterns.processor.fleet import Fleet
from aiopatterns.processor.output import Output
from aiopatterns.processor.system import DataProcessor
from aiopatterns.processor.trace import render_trace

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from aiopatterns.backends.url import Target
    from aiopatterns.cli.screen import View
    from aiopatterns.core.outcome import Outcome
    from aiopatterns.flow.executors import Executor
    from aiopatterns.processor.analysis import Analysis, Package
    from aiopatterns.processor.progress import StageSnapshot

__all__ = ["run"]

# Worker processes are forked from one that has imported this, and nothing that they do not need.
_PRELOAD = ("aiopatterns.processor.stages",)
_TOP = 10
# Calls that are out at once in a cluster whose size nobody has told.
_DASK_LIMIT = 16


def run(options: Namespace) -> int:
    """Run the main job; returns the exit code.

    Args:
        options: What the command line says.

    Raises:
        UsageError: It cannot be begun.
        Exception: It failed.
    """
    corpus = _corpus(options.path)
    with ExitStack() as stack:
        stack.enter_context(ended_by_sigterm())
        report = _reserved(stack, "--report", options.report)
        trace = _reserved(stack, "--trace", options.trace) if options.trace else None
        engine = _engine(stack, options)
        processor = DataProcessor(corpus, executor=engine, report=report)
        view = view_for(json=options.json)
        uvloop = {"use_uvloop": find_spec("uvloop") is not None}
        return _told(
            anyio.run(_work, processor, view, backend_options=uvloop), processor, options, trace
        )


def _engine(stack: ExitStack, options: Namespace) -> Executor | Fleet:
    """Make what the work runs in, or say what is not there."""
    target = parse(options.backend)
    executor = _executor(options, local=target.scheme == "memory")
    if options.executor.startswith("dask:") and "debug" not in options:  # it logs to stderr
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable()
    if target.scheme == "memory":
        if options.id is not None:
            raise UsageError("--id needs a --backend that outlives this process, as redis:// does")
        assert executor is not None, "only a fleet works without an executor"
        return executor
    url = _embedded(stack, target) if target.scheme == "embedded" else options.backend
    processes = options.workers or processors()
    return Fleet(url, processes=processes, run=options.id, executor=executor)


def _executor(options: Namespace, *, local: bool) -> Executor | None:
    """Make the executor; a fleet has workers of its own in place of processes."""
    kind, _, address = options.executor.partition("://")
    host, _, port = address.rpartition(":")
    if kind == "inline" and local:
        return Inline(1)
    if kind == "processes":
        return Processes(options.workers, preload=_PRELOAD) if local else None
    if kind == "dask" and host and port.isdecimal():
        from aiopatterns.contrib.dask import DaskExecutor

        return DaskExecutor(f"tcp://{address}", limit=options.workers or _DASK_LIMIT)
    allowed = "inline, processes or dask://host:port" if local else "processes or dask://host:port"
    where = "" if local else f" with --backend {options.backend.partition(':')[0]}"
    raise UsageError(f"--executor must be {allowed}{where}, not {options.executor!r}")


def _embedded(stack: ExitStack, target: Target) -> str:
    """Start a private server for this run, and return where it listens."""
    from aiopatterns.backends.redis.embedded import RedisServer

    config = {"appendonly": "yes"} if target.path else None
    return stack.enter_context(RedisServer(target.path or None, config=config, private=True)).url


def _corpus(path: str | None) -> Corpus:
    if path is None:
        return Corpus.standard_library()
    if not path:  # an unset variable of a script, not this folder
        raise UsageError("PATH must name a folder or a file, and is empty")
    try:
        return Corpus.at(path)
    except OSError as error:
        raise UsageError(f"{error.strerror}: {path}") from error


def _reserved(stack: ExitStack, option: str, path: str) -> Output:
    """Make sure that a file can be written before the work begins."""
    try:
        return stack.enter_context(Output(path))
    except OSError as error:
        raise UsageError(f"{option} cannot be written: {error.strerror}: {path}") from error


async def _work(processor: DataProcessor, view: View) -> Analysis:
    """Run the system under a view of it; what either raises leaves bare."""
    outcomes: list[Outcome[Analysis]] = []
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(view.follow, processor)
            try:
                outcomes.append(Ok(await processor.run()))
            except Exception as error:
                outcomes.append(Err(error))
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as errors:  # of the view: its terminal, pipe or file is gone
        raise_bare(errors)
    return outcomes[0].unwrap()


def _told(
    analysis: Analysis, processor: DataProcessor, options: Namespace, trace: Output | None
) -> int:
    """Give the result; files that could not be read make an exit code of their own."""
    if trace is not None:
        trace.write(render_trace(processor.progress))
    if options.json:
        print(json.dumps(_as_data(analysis, processor, options), indent=1))
    else:
        print("\n".join(_as_text(analysis, processor, options)))
    if not analysis.troubles:
        return DONE
    first, number = analysis.troubles[0], len(analysis.troubles)
    what = f"{number} files or folders" if number > 1 else "a file or folder"
    where = f"{units.printable(first.path) or processor.corpus.title}: {first.reason}"
    return complain(f"{what} could not be read: {where}", FAILED)


def _as_text(analysis: Analysis, processor: DataProcessor, options: Namespace) -> Iterator[str]:
    """The result as lines for people."""
    found = analysis.catalogue
    copies = sum(len(group) - 1 for group in found.duplicates)
    count = units.count
    yield f"{processor.corpus.title}: {count(analysis.files)} files, {units.size(analysis.size)}"
    yield f"files        {count(analysis.files)} in {count(len(analysis.packages))} packages"
    yield f"lines        {count(analysis.lines)}"
    yield f"words        {count(analysis.word_count)}, {count(len(analysis.words))} different"
    yield f"top words    {_terms(analysis.top_words)}"
    yield f"top names    {_terms(analysis.top_names)}"
    yield f"undecodable  {count(len(found.undecodable))}"
    yield f"duplicates   {count(copies)} in {len(found.duplicates)} groups"
    yield f"binary       {count(len(found.binary))}"
    yield ""
    yield from _stage_lines(processor)
    yield ""
    yield f"report       {options.report}"
    if options.trace:
        yield f"trace        {options.trace}"


def _terms(terms: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{units.cut(text)} {units.count(count)}" for text, count in terms[:_TOP])


def _stage_lines(processor: DataProcessor) -> Iterator[str]:
    """A table of the stages."""
    snapshot = processor.progress.snapshot()
    yield f"{'stage':<12}{'tasks':>6}{'time':>10}{'throughput':>13}{'p50':>10}{'p99':>10}"
    for each in snapshot.stages:
        rate = f"{units.size(each.throughput)}/s" if each.size else "-"
        yield (
            f"{each.name:<12}{each.done:>6}{units.seconds(each.elapsed):>10}{rate:>13}"
            f"{units.seconds(each.p50):>10}{units.seconds(each.p99):>10}"
        )
    yield f"{'wall time':<18}{units.seconds(snapshot.elapsed):>10}"


def _as_data(analysis: Analysis, processor: DataProcessor, options: Namespace) -> dict[str, object]:
    """The result as plain data."""
    snapshot = processor.progress.snapshot()
    return {
        "corpus": processor.corpus.title,
        "files": analysis.files,
        "bytes": analysis.size,
        "lines": analysis.lines,
        "words": analysis.word_count,
        "unique_words": len(analysis.words),
        "top_words": [{"word": each.text, "count": each.number} for each in analysis.top_words],
        "names": analysis.name_count,
        "unique_names": len(analysis.names),
        "top_names": [{"name": each.text, "count": each.number} for each in analysis.top_names],
        "characters": analysis.volume._asdict(),
        **_files_data(analysis),
        "stages": [*map(_stage_data, snapshot.stages)],
        "elapsed": snapshot.elapsed,
        "report": options.report,
        "trace": options.trace,
    }


def _files_data(analysis: Analysis) -> dict[str, object]:
    found, shown = analysis.catalogue, units.printable
    return {
        "undecodable": [*map(shown, found.undecodable)],
        "duplicates": [[*map(shown, group)] for group in found.duplicates],
        "binary": [*map(shown, found.binary)],
        "unreadable": [{"path": shown(path), "reason": why} for path, why in analysis.troubles],
        "skipped": found.skipped,
        "packages": [*map(_package_data, analysis.packages)],
        "outliers": [
            {"path": shown(each.path), "what": each.what, "bytes": each.value, "score": each.score}
            for each in analysis.outliers
        ],
    }


def _package_data(package: Package) -> dict[str, object]:
    return {
        "name": units.printable(package.name),
        "files": package.files,
        "bytes": package.size,
        "lines": package.lines,
        "words": package.words,
        "keywords": package.keywords,
    }


def _stage_data(stage: StageSnapshot) -> dict[str, object]:
    return {
        "name": stage.name,
        "tasks": stage.done,
        "files": stage.files,
        "bytes": stage.size,
        "elapsed": stage.elapsed,
        "bytes_per_second": stage.throughput,
        "p50": stage.p50,
        "p95": stage.p95,
        "p99": stage.p99,
    }
