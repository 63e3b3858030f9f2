"""A real cluster of two worker processes."""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import sys
from typing import Any, cast

import anyio
import dask
import pytest
from distributed import Client, Future, LocalCluster

from aiopatterns.cli.app import main
from aiopatterns.cli.exits import FAILED
from aiopatterns.contrib import dask as module
from aiopatterns.contrib.dask import DaskExecutor
from aiopatterns.core.errors import BackendUnavailableError, ClosedError, WorkerCrashedError
from aiopatterns.flow.executors import Inline
from aiopatterns.flow.mapreduce import map_reduce
from aiopatterns.processor.corpus import Corpus
from aiopatterns.processor.fleet import Fleet
from aiopatterns.processor.system import DataProcessor
from tests.contrib.daskjobs import die, die_once, fail, square, wait_for
from tests.jobs.fleet import on_one_loop
from tests.processor.reference import make_tree

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

CONFIG = {
    "distributed.scheduler.allowed-failures": 1,
    "distributed.logging.distributed": "critical",
}


@pytest.fixture(scope="module")
def cluster():
    with (
        dask.config.set(CONFIG),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=100
        ) as found,
    ):
        yield found.scheduler_address
        with Client(found) as client:  # it cannot close what it is just starting again
            client.wait_for_workers(2, timeout=30)


@on_one_loop
async def test_functions_run_there_and_results_and_errors_come_back(cluster):
    async with DaskExecutor(cluster, limit=3) as executor:
        assert await executor.run(square, 7) == 49
        with pytest.raises(KeyError, match="7"):
            await executor.run(fail, 7)
        assert await executor.run(os.getpid) != os.getpid()
        statistics = executor.statistics()
        assert (statistics.capacity, statistics.done, statistics.failed) == (3, 2, 1)
        total = await map_reduce(
            range(200), square, lambda a, b: a + b, initial=int, chunk=50, executor=executor
        )
        assert total == sum(each * each for each in range(200))
    with pytest.raises(ClosedError):
        await executor.run(square, 7)


@on_one_loop
async def test_a_cancelled_caller_leaves_and_the_others_go_on(cluster, tmp_path):
    marker, began = tmp_path / "marker", tmp_path / "began"
    async with DaskExecutor(cluster, limit=4) as executor:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(executor.run, wait_for, str(marker), str(began))
            while not began.exists():
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        assert (executor.statistics().running, executor.statistics().failed) == (0, 1)
        marker.touch()  # the scheduler takes that worker for idle, though its thread is not
        assert await executor.run(square, 3) == 9


@on_one_loop
async def test_leaving_by_an_error_tells_who_waits(cluster, tmp_path):
    marker, began = tmp_path / "marker", tmp_path / "began"
    errors = []

    async def call(executor: DaskExecutor) -> None:
        try:
            await executor.run(wait_for, str(marker), str(began))
        except ClosedError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        with pytest.raises(KeyError):
            async with DaskExecutor(cluster) as executor:
                tasks.start_soon(call, executor)
                while not began.exists():
                    await anyio.sleep(0.01)
                raise KeyError
        marker.touch()
    assert errors == ["DaskExecutor 'dask' was closed under the call"]


@on_one_loop
async def test_a_call_whose_worker_dies_is_tried_on_another(cluster, tmp_path):
    async with DaskExecutor(cluster) as executor:
        assert await executor.run(die_once, str(tmp_path / "marker")) == "alive"
        with pytest.raises(WorkerCrashedError, match=r"every worker that tried .*die died") as info:
            await executor.run(die)
        assert info.value.attempts == 2


@on_one_loop
async def test_a_scheduler_that_does_not_answer_or_goes_away_is_one_error():
    with pytest.raises(BackendUnavailableError, match=r"no Dask scheduler answers at tcp://127"):
        async with DaskExecutor("tcp://127.0.0.1:1", timeout=0.2):
            pass


@on_one_loop
async def test_who_listens_but_never_speaks_is_no_scheduler(monkeypatch):
    monkeypatch.setattr(module, "_FAREWELL", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BackendUnavailableError, match=f"at {address}: no answer within 0.2 s"):
            async with DaskExecutor(address, timeout=0.2):
                pass


@on_one_loop
async def test_a_client_is_used_and_left_open(cluster, tmp_path):
    async with Client(cluster, asynchronous=True, set_as_default=False) as client:
        async with DaskExecutor(client) as executor:
            assert await executor.run(square, 3) == 9
            marker, began = tmp_path / "marker", tmp_path / "began"

            async def drop() -> None:
                while not began.exists():
                    await anyio.sleep(0.01)
                await client.cancel([Future(each, client) for each in client.futures])

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(drop)
                with pytest.raises(BackendUnavailableError, match="Dask has dropped the call"):
                    await executor.run(wait_for, str(marker), str(began))
            marker.touch()
        assert client.status == "running"


def test_a_missing_dask_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "aiopatterns.contrib.dask")
    with pytest.raises(ImportError, match=r"pip install 'aiopatterns\[dask\]'") as raised:
        importlib.import_module("aiopatterns.contrib.dask")
    assert "\n" not in str(raised.value)


def test_bad_arguments_are_refused(cluster):
    with pytest.raises(TypeError, match="scheduler must be an address or a Client, not 17"):
        DaskExecutor(cast("Any", 17))
    with Client(cluster, set_as_default=False) as client:
        with pytest.raises(TypeError, match="scheduler must be an asynchronous client"):
            DaskExecutor(client)
    for wrong in ({"limit": 0}, {"timeout": 0.0}, {"name": ""}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DaskExecutor("tcp://host:1", **wrong)


@pytest.mark.promise("processor-dask")
@on_one_loop
async def test_a_fleet_has_its_words_counted_there(cluster, tmp_path):
    corpus = Corpus.at(make_tree(tmp_path))
    expected = await DataProcessor(corpus, executor=Inline(1), chunk_bytes=200).run()
    fleet = Fleet("memory://", processes=2, executor=DaskExecutor(cluster, limit=4))
    processor = DataProcessor(corpus, executor=fleet, chunk_bytes=200)
    assert await processor.run() == expected
    spans = {each.stage: each.lane for each in processor.progress.spans if each.task >= 0}
    assert spans["processing"].startswith("thread")
    assert spans["analysis"].startswith("process")


@pytest.mark.promise("processor-dask")
def test_the_command_runs_there(cluster, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = str(make_tree(tmp_path / "tree"))
    found = []
    for executor in ("inline", cluster.replace("tcp", "dask", 1)):
        assert main(["run", tree, "--executor", executor, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        del result["elapsed"], result["stages"]
        found.append(result)
    assert found[0] == found[1]


def test_what_dask_logs_is_not_beside_the_one_line(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        logging.getLogger("distributed.client").critical("a traceback")
        raise BackendUnavailableError("no")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DataProcessor, "run", refuse)
    (tmp_path / "one.txt").write_text("one")
    assert main(["run", "one.txt", "--executor", "dask://127.0.0.1:1"]) == FAILED
    assert capsys.readouterr().err == "aiopatterns: no\n"
    assert logging.root.manager.disable == logging.NOTSET
