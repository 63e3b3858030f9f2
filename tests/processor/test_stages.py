from __future__ import annotations

import os
import pickle
from collections import Counter
from threading import get_native_id

from aiopatterns.processor import stages, tokens
from aiopatterns.processor.corpus import Chunk, Corpus, Entry, plan
from aiopatterns.processor.stages import Volume
from tests.processor.reference import SOURCE, make_tree, plain_count, plain_names


def whole(root) -> Chunk:
    (chunk,) = plan(Corpus.at(root).walk().documents, root, chunk_bytes=1 << 30)
    return chunk


def test_ingest_gives_the_facts_of_each_file(tmp_path):
    facts = {each.path: each for each in stages.ingest(whole(make_tree(tmp_path)))}
    assert {path: each.kind for path, each in facts.items() if each.kind != "text"} == {
        "beta/image.bin": "binary",
        "beta/latin.txt": "undecodable",
    }
    one = facts["alpha/one.py"]
    assert (one.package, one.size, one.lines) == ("alpha", len(SOURCE.encode()), 8)
    assert one.longest == max(map(len, SOURCE.encode().split(b"\n")))
    assert one.digest == facts["alpha/copy.py"].digest != facts["alpha/two.py"].digest
    assert facts["no_suffix"].lines == 1
    assert facts["beta/empty.txt"].lines == 0
    assert sum(each.lines for each in facts.values()) == plain_count(tmp_path).lines


def test_facts_do_not_depend_on_the_blocks(tmp_path, monkeypatch):
    chunk = whole(make_tree(tmp_path))
    before = stages.ingest(chunk)
    monkeypatch.setattr(tokens, "BLOCK", 7)
    assert stages.ingest(chunk) == before


def test_an_unreadable_file_is_a_fact(tmp_path):
    chunk = Chunk(0, str(tmp_path), (Entry("gone", ("p",)),), 0)
    (facts,) = stages.ingest(chunk)
    assert (facts.path, facts.package, facts.kind) == ("gone", "p", "unreadable")
    assert facts.reason == "No such file or directory"
    assert stages.process(chunk).troubles == (("gone", "No such file or directory"),)
    assert stages.count(chunk) == ((), (("gone", "No such file or directory"),))


def test_process_counts_names_once_for_each_copy(tmp_path):
    make_tree(tmp_path)
    entries = (Entry("alpha/one.py", ("alpha", "alpha")), Entry("top.md", ("top",)))
    done = stages.process(Chunk(0, str(tmp_path), entries, 0))
    names = plain_names(SOURCE)
    assert tokens.unpack(done.names) == dict(names + names)
    parts = tokens.take_apart(SOURCE)
    assert done.volume == Volume(
        2 * parts.code_size, 2 * parts.comments_size, 2 * parts.strings_size, len(SOURCE)
    )
    assert done.troubles == ()


def test_count_counts_words_for_each_package(tmp_path):
    make_tree(tmp_path)
    entries = (Entry("alpha/one.py", ("alpha", "beta", "beta")), Entry("no_suffix", ("top",)))
    counted = {
        package: Counter(tokens.unpack(bag))
        for package, bag in stages.count(Chunk(0, str(tmp_path), entries, 0)).words
    }
    once = Counter(each.decode() for each in tokens.words(SOURCE.encode()))
    assert counted["alpha"] == once
    assert counted["beta"] == once + once
    assert counted["top"]["words"] == 1


def test_results_travel_between_processes(tmp_path):
    chunk = whole(make_tree(tmp_path))
    for fn in (stages.ingest, stages.process, stages.count):
        timed = stages.timed(fn, chunk)
        assert pickle.loads(pickle.dumps(timed)) == timed
        assert (timed.task, timed.process, timed.thread) == (0, os.getpid(), get_native_id())
        assert timed.start <= timed.end
