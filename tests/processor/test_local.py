from __future__ import annotations

from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.flow.executors import Inline
from aiopatterns.processor import stages
from aiopatterns.processor.corpus import Corpus, plan
from aiopatterns.processor.local import LocalEngine
from aiopatterns.processor.progress import Progress
from tests.processor.reference import make_tree


def chunks_of(root):
    return plan(Corpus.at(make_tree(root)).walk().documents, root, chunk_bytes=300)


async def test_each_stage_does_every_chunk_once(tmp_path):
    chunks = chunks_of(tmp_path)
    engine, progress = LocalEngine(Inline(3)), Progress(3)
    assert engine.capacity == 3
    async with engine.opened():
        facts = await engine.ingest(chunks, progress)
        lexicon = await engine.process(chunks, progress)
        words = await engine.count(chunks, progress)
    assert sorted(facts) == sorted(each for chunk in chunks for each in stages.ingest(chunk))
    assert sum(lexicon.volume) == sum(sum(stages.process(each).volume) for each in chunks)
    assert {name for each in chunks for name, _ in stages.count(each).words} == {*words.packages}
    assert [each.done for each in progress.snapshot().stages[:3]] == [len(chunks)] * 3


async def test_an_executor_that_is_open_stays_open(tmp_path):
    async with Inline(1) as executor:
        async with LocalEngine(executor).opened():
            pass
        assert executor.state is OwnerState.RUNNING
    engine = LocalEngine(executor)
    async with engine.opened():
        assert executor.state is OwnerState.RUNNING
    assert executor.statistics().running == 0
