from __future__ import annotations

import pytest

from aiopatterns.flow.executors import Inline
from aiopatterns.processor.corpus import Corpus, plan
from aiopatterns.processor.engine import Engine, Lexicon
from aiopatterns.processor.fleet import Fleet
from aiopatterns.processor.local import LocalEngine
from aiopatterns.processor.progress import Progress
from aiopatterns.processor.stages import Volume
from tests.processor.reference import make_tree


def engines() -> list[Engine]:
    return [LocalEngine(Inline(2)), Fleet("memory://", processes=2)]


@pytest.mark.parametrize("number", range(2))
async def test_the_same_chunks_give_the_same_in_every_engine(tmp_path, number):
    chunks = plan(Corpus.at(make_tree(tmp_path)).walk().documents, tmp_path, chunk_bytes=200)
    expected, engine = engines()[0], engines()[number]
    found = []
    for each in (expected, engine):
        progress = Progress(2)
        async with each.opened():
            facts = await each.ingest(chunks, progress)
            lexicon = await each.process(chunks, progress)
            found.append((sorted(facts), lexicon, await each.count(chunks, progress)))
    assert found[0] == found[1]


@pytest.mark.parametrize("number", range(2))
async def test_no_chunks_are_nothing(number):
    engine, progress = engines()[number], Progress()
    async with engine.opened():
        assert await engine.ingest([], progress) == []
        assert await engine.process([], progress) == Lexicon({}, Volume(), ())
        assert await engine.count([], progress) == ({}, ())
