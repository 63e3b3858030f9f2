from __future__ import annotations

import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.errors import CodecError
from aiopatterns.processor import wire
from aiopatterns.processor.corpus import Chunk, Entry, Trouble
from aiopatterns.processor.stages import Counted, Facts, Processed, Volume
from aiopatterns.processor.tokens import Bag

names = st.binary(max_size=20).map(os.fsdecode)
counts = st.integers(0, 2**40)
bags = st.builds(Bag, st.binary(max_size=20), st.binary(max_size=20))
troubles = st.lists(st.builds(Trouble, names, names), max_size=3).map(tuple)
entries = st.builds(Entry, names, st.lists(names, max_size=3).map(tuple))
chunks = st.builds(Chunk, counts, names, st.lists(entries, max_size=3).map(tuple), counts)
kinds = st.sampled_from(["text", "undecodable", "binary", "unreadable"])
facts = st.builds(Facts, names, names, kinds, counts, counts, counts, st.binary(max_size=32), names)
processed = st.builds(Processed, bags, st.builds(Volume, counts, counts, counts, counts), troubles)
counted = st.builds(Counted, st.lists(st.tuples(names, bags), max_size=3).map(tuple), troubles)


@given(chunks)
def test_a_chunk_comes_back(chunk):
    assert wire.read_chunk(wire.write_chunk(chunk)) == chunk


@given(st.lists(facts, max_size=3).map(tuple))
def test_facts_come_back(found):
    assert wire.read_facts(wire.write_facts(found)) == found


@given(processed, counted)
def test_vocabularies_come_back(names, words):
    assert wire.read_processed(wire.write_processed(names)) == names
    assert wire.read_counted(wire.write_counted(words)) == words


@given(st.binary(max_size=40))
@pytest.mark.parametrize("what", ["chunk", "facts", "processed", "counted"])
def test_anything_else_is_refused_by_one_error(what, data):
    with suppress(CodecError):
        getattr(wire, f"read_{what}")(data)
