from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from aiopatterns.cli import screen
from aiopatterns.cli.screen import LiveView, NoView, PlainView, view_for
from aiopatterns.core.clock import sleep
from aiopatterns.processor.progress import Progress
from aiopatterns.testing import simulate
from tests.processor.records import make_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(view, *acts):
    """Follow a run whose progress is changed by one act each second of virtual time."""
    processor = SimpleNamespace(progress=Progress(), corpus=SimpleNamespace(title="the corpus"))

    async def scene() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(view.follow, processor)
            for act in acts:
                await sleep(1)
                act(processor)
            await sleep(1)
            tasks.cancel_scope.cancel()

    simulate(scene)


def become(progress: Progress):
    def act(processor) -> None:
        processor.progress = progress

    return act


@pytest.mark.parametrize(
    ("json", "out", "err", "rich", "kind"),
    [
        (False, Terminal, io.StringIO, True, LiveView),
        (False, Terminal, io.StringIO, False, PlainView),
        (False, io.StringIO, Terminal, True, PlainView),
        (True, io.StringIO, Terminal, True, LiveView),
        (True, Terminal, io.StringIO, True, NoView),
        (True, Terminal, Terminal, False, NoView),
    ],
)
def test_the_view_fits_who_looks(monkeypatch, json, out, err, rich, kind):
    monkeypatch.setattr(sys, "stdout", out())
    monkeypatch.setattr(sys, "stderr", err())
    monkeypatch.setattr(screen, "find_spec", lambda name: rich or None)
    assert type(view_for(json=json)) is kind


def test_a_terminal_without_rich_gets_the_pip_command(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(screen, "find_spec", lambda name: None)
    watched(view_for(json=False))
    assert terminal.getvalue() == "for a live screen: pip install 'aiopatterns[cli]'\n"


def test_plain_lines_say_what_begins_and_ends():
    stream = io.StringIO()
    progress = Progress()
    stage = progress.stage("ingestion")

    def begin(processor):
        processor.progress = progress
        stage.__enter__()

    watched(PlainView(stream), begin, lambda _: stage.__exit__(None, None, None))
    first, second = stream.getvalue().splitlines()
    assert first.endswith("ingestion   begins")
    assert "ingestion   done: " in second
    watched(PlainView(stream), become(make_progress()))
    assert "processing  done: 3 files, 3 kB, " in stream.getvalue()


def test_a_failed_stage_is_said():
    progress = Progress()
    with pytest.raises(KeyError), progress.stage("analysis"):
        raise KeyError
    stream = io.StringIO()
    watched(PlainView(stream), become(progress))
    assert "analysis    failed after " in stream.getvalue()


def test_no_view_shows_nothing():
    watched(NoView())


def test_the_live_screen_shows_stages_workers_and_throughput():
    stream = Terminal()
    watched(LiveView(stream), become(make_progress()), lambda _: None)
    text = stream.getvalue()
    for each in ("the corpus", "ingestion", "queued", "throughput", "process 1", "busy", "✔"):
        assert each in text
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_the_picture_of_a_run_that_has_just_begun():
    view = LiveView(Terminal())
    processor: Any = SimpleNamespace(progress=Progress(), corpus=SimpleNamespace(title="x"))

    async def twice() -> None:
        for _ in range(2):  # at one instant
            view.picture(processor)

    simulate(twice)
    assert list(view._rates) == [0.0]
