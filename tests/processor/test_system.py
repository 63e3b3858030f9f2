from __future__ import annotations

import json
import random
import shutil
import sysconfig
from collections import Counter
from pathlib import Path

import anyio
import pytest

from aiopatterns.core.clock import yield_now
from aiopatterns.flow.executors import Executor, Inline, Processes
from aiopatterns.processor import stages
from aiopatterns.processor.analysis import Analysis
from aiopatterns.processor.corpus import Corpus
from aiopatterns.processor.output import Output
from aiopatterns.processor.progress import StageState
from aiopatterns.processor.system import DataProcessor
from aiopatterns.processor.trace import render_trace
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate
from tests.processor.reference import make_tree, plain_count, plain_names
from tests.processor.test_trace import check


def assert_plain(analysis: Analysis, root: Path, suffix: str = "") -> None:
    """The result equals the plain serial count."""
    plain = plain_count(root, suffix)
    found = analysis.catalogue
    assert (analysis.files, analysis.size, analysis.lines) == (
        plain.files, plain.size, plain.lines,
    )  # fmt: skip
    assert analysis.words == plain.words
    assert analysis.word_count == plain.words.total()
    best = sorted(plain.words.items(), key=lambda each: (-each[1], each[0]))
    assert [*analysis.top_words] == best[: len(analysis.top_words)]
    assert sorted([*map(sorted, found.duplicates)]) == plain.copies
    assert [*found.undecodable] == sorted(plain.undecodable)
    assert [*found.binary] == sorted(plain.binary)
    assert sum(each.words for each in analysis.packages) == analysis.word_count
    assert sum(analysis.volume) == sum(
        len((root / each.path).read_bytes().decode(errors="replace")) for each in found.texts
    )


def grow(root: Path, seed: int) -> Path:
    """A tree of words, chosen by a seed."""
    dice = random.Random(seed)
    words = ["alpha", "Beta", "ÄRGER", "x1y", "don't", "'''", '"', "#", "\n", "\n", "İ", "½"]
    for number in range(dice.randrange(1, 25)):
        path = root / dice.choice("abc") / f"{number}.{dice.choice(['py', 'txt'])}"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = " ".join(dice.choices(words, k=dice.randrange(40))).encode()
        path.write_bytes(data + dice.choice([b"", b"", b"\xff", b"\0"]))
    (root / "one.txt").write_text("at least this")
    return root


@pytest.mark.promise("processor-serial-count")
async def test_the_result_equals_a_plain_serial_count(tmp_path):
    processor = DataProcessor(Corpus.at(make_tree(tmp_path)), executor=Inline(), chunk_bytes=300)
    assert_plain(await processor.run(), tmp_path)
    snapshot = processor.progress.snapshot()
    assert [each.state for each in snapshot.stages[:3]] == [StageState.DONE] * 3
    assert all(each.queued == each.running == 0 for each in snapshot.stages)
    assert [each.size for each in snapshot.stages[:1]] == [
        sum(each.size for each in processor.corpus.walk().documents)
    ]
    check(render_trace(processor.progress))


@pytest.mark.promise("processor-serial-count")
@pytest.mark.parametrize("seed", range(12))
def test_trees_of_all_kinds(tmp_path, seed):
    processor = DataProcessor(Corpus.at(grow(tmp_path, seed)), executor=Inline(3), chunk_bytes=90)
    assert_plain(simulate(processor.run, seed=seed), tmp_path)


def test_under_many_schedules_the_result_is_the_same(tmp_path):
    grow(tmp_path, 3)

    async def run() -> None:
        processor = DataProcessor(Corpus.at(tmp_path), executor=Inline(4), chunk_bytes=60)
        assert_plain(await processor.run(), tmp_path)

    explore(run, range(30))


@pytest.mark.promise("processor-serial-count")
@pytest.mark.real
async def test_the_same_in_processes_on_a_part_of_the_standard_library(tmp_path):
    library = Path(sysconfig.get_path("stdlib"))
    for package in ("email", "encodings", "json", "asyncio"):
        shutil.copytree(
            library / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(library / "argparse.py", tmp_path / "json" / "copy.py")
    shutil.copy(library / "argparse.py", tmp_path)
    report = Output(tmp_path.parent / f"{tmp_path.name}.html")
    processor = DataProcessor(
        Corpus.at(tmp_path), executor=Processes(2), report=report, chunk_bytes=300_000
    )
    analysis = await processor.run()
    assert_plain(analysis, tmp_path)
    names: Counter[str] = Counter()
    for path in tmp_path.rglob("*.py"):
        names += plain_names(path.read_text("utf-8"))
    assert analysis.names == names
    assert report.path.read_text("utf-8").startswith("<!doctype html>")
    lanes = {lane for lane, _ in processor.progress.snapshot().lanes}
    assert {"process 1", "process 2", "main"} <= lanes
    check(render_trace(processor.progress))


async def test_an_open_executor_is_used_and_left_open(tmp_path):
    grow(tmp_path, 1)
    async with Inline() as executor:
        for _ in range(2):
            processor = DataProcessor(Corpus.at(tmp_path), executor=executor)
            assert_plain(await processor.run(), tmp_path)
        assert executor.statistics().done > 0


async def test_a_run_can_be_repeated(tmp_path):
    processor = DataProcessor(Corpus.at(grow(tmp_path, 2)), executor=Inline())
    first = await processor.run()
    assert (await processor.run()).words == first.words
    assert processor.progress.snapshot().stages[0].done == 1


async def test_only_empty_files_are_a_corpus(tmp_path):
    (tmp_path / "empty").touch()
    analysis = await DataProcessor(Corpus.at(tmp_path), executor=Inline()).run()
    assert (analysis.files, analysis.word_count, analysis.top_words) == (1, 0, ())


@pytest.mark.promise("processor-bad-input")
async def test_no_text_is_one_clear_error(tmp_path):
    report = Output(tmp_path.parent / f"{tmp_path.name}.html")
    processor = DataProcessor(Corpus.at(tmp_path), executor=Inline(), report=report)
    with pytest.raises(ValueError, match=r"path must hold at least one text: .* holds no files"):
        await processor.run()
    (tmp_path / "b").write_bytes(b"\0")
    with pytest.raises(ValueError, match="holds 1 binary and 0 unreadable files"):
        await processor.run()
    assert not report.path.exists()
    assert processor.progress.snapshot().stages[0].state is StageState.FAILED


def test_bad_arguments_are_refused(tmp_path):
    corpus = Corpus.at(tmp_path)
    with pytest.raises(TypeError, match="corpus must be a Corpus, not 'x'"):
        DataProcessor("x", executor=Inline())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"executor must be an executor such as Processes\(2\)"):
        DataProcessor(corpus, executor=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunk_bytes must be a whole number >= 1, not 0"):
        DataProcessor(corpus, executor=Inline(), chunk_bytes=0)


async def test_a_file_that_goes_away_between_stages_is_a_line_of_the_result(tmp_path, monkeypatch):
    grow(tmp_path, 4)

    def process_late(chunk):
        (tmp_path / "one.txt").unlink(missing_ok=True)
        return real(chunk)

    real = stages.process
    monkeypatch.setattr(stages, "process", process_late)
    analysis = await DataProcessor(Corpus.at(tmp_path), executor=Inline()).run()
    assert analysis.troubles == (("one.txt", "No such file or directory"),)


class Flaky(Executor):
    """Fails the first calls of a stage with an error that may pass."""

    def __init__(self, failures: int, stage: str) -> None:
        super().__init__(2, "flaky")
        self.left = failures
        self.stage = stage

    async def _call(self, fn, args):
        if self.left and getattr(args[0], "__name__", "") == self.stage:
            self.left -= 1
            raise OSError("the file system hiccuped")
        return fn(*args)


class Patient(Executor):
    """Gives the loop a turn in every call; in one of them, it has something done before."""

    def __init__(self, position: int = -1, act=None) -> None:
        super().__init__(1, "patient")
        self.calls = 0
        self.position = position
        self.act = act

    async def _call(self, fn, args):
        self.calls += 1
        if self.calls == self.position:
            self.act()
        await yield_now()
        return fn(*args)


@pytest.mark.parametrize("stage", ["ingest", "process"])
async def test_a_task_that_fails_for_a_while_is_tried_again(tmp_path, stage):
    grow(tmp_path, 5)
    processor = DataProcessor(Corpus.at(tmp_path), executor=Flaky(2, stage))
    assert_plain(await processor.run(), tmp_path)
    assert all(each.running == 0 for each in processor.progress.snapshot().stages)
    with pytest.raises(OSError, match="hiccuped"):
        await DataProcessor(Corpus.at(tmp_path), executor=Flaky(3, stage)).run()


@pytest.mark.promise("processor-full-disk")
async def test_a_full_disk_fails_the_report_stage(tmp_path):
    grow(tmp_path, 6)
    processor = DataProcessor(Corpus.at(tmp_path), executor=Inline(), report=Output("/dev/full"))
    with pytest.raises(OSError, match="No space left on device"):
        await processor.run()
    assert processor.progress.snapshot().stages[3].state is StageState.FAILED


@pytest.mark.promise("processor-interrupt")
def test_a_cancelled_run_leaves_no_half_written_report(tmp_path):
    make_tree(tmp_path / "tree")
    target = tmp_path / "out" / "report.html"
    target.parent.mkdir()
    target.write_text("old")

    async def work() -> None:
        with Output(target) as report:
            corpus = Corpus.at(tmp_path / "tree")
            await DataProcessor(corpus, executor=Patient(), report=report, chunk_bytes=300).run()

    def check_place() -> None:
        assert [each.name for each in target.parent.iterdir()] == ["report.html"]
        assert target.read_text() == "old" or target.read_text().endswith("</html>\n")

    cancel_everywhere(lambda: Trial(work(), check_place), minimum=2)


@pytest.mark.promise("processor-interrupt")
async def test_a_run_cancelled_in_any_task_leaves_the_old_report(tmp_path):
    make_tree(tmp_path / "tree")
    corpus = Corpus.at(tmp_path / "tree")
    probe = Patient()
    await DataProcessor(corpus, executor=probe, chunk_bytes=300).run()
    assert probe.calls >= 6
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "report.html"
    target.write_text("old")
    for position in range(1, probe.calls + 1):
        with anyio.CancelScope() as scope, Output(target) as report:
            executor = Patient(position, scope.cancel)
            await DataProcessor(corpus, executor=executor, report=report, chunk_bytes=300).run()
        assert scope.cancelled_caught
        assert target.read_text() == "old"
        assert len([*target.parent.iterdir()]) == 1


@pytest.mark.real
@pytest.mark.promise("processor-interrupt")
async def test_a_cancelled_run_ends_its_processes(tmp_path):
    grow(tmp_path, 8)
    executor = Processes(2)
    with anyio.move_on_after(0.05) as scope:
        while True:
            await DataProcessor(Corpus.at(tmp_path), executor=executor).run()
    assert scope.cancelled_caught
    assert not executor._workers


def test_the_trace_is_json(tmp_path):
    processor = DataProcessor(Corpus.at(grow(tmp_path, 9)), executor=Inline())
    simulate(processor.run)
    assert json.loads(render_trace(processor.progress))["displayTimeUnit"] == "ms"
