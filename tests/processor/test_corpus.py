from __future__ import annotations

import os
import socket
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.processor.corpus import Corpus, Document, Entry, plan
from tests.processor.reference import make_tree


def test_every_regular_file_counts_and_no_link_is_followed(tmp_path):
    listing = Corpus.at(make_tree(tmp_path)).walk()
    assert [each.path for each in listing.documents] == [
        "alpha/copy.py", "alpha/one.py", "alpha/two.py", "beta/deep/er/notes.txt",
        "beta/empty.txt", "beta/image.bin", "beta/latin.txt", "beta/other_empty.txt",
        "no_suffix", "top.md",
    ]  # fmt: skip
    assert [each.package for each in listing.documents] == ["alpha"] * 3 + ["beta"] * 5 + [
        "no_suffix",
        "top",
    ]
    assert listing.skipped == 2
    assert listing.troubles == ()
    assert listing.size == sum(each.size for each in listing.documents) > 0


def test_sockets_are_skipped(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s"))
        assert Corpus.at(tmp_path).walk().skipped == 1


def test_the_standard_library_without_what_was_installed():
    corpus = Corpus.standard_library()
    paths = [each.path for each in corpus.walk().documents]
    assert corpus.root == Path(sysconfig.get_path("stdlib"))
    assert "json/decoder.py" in paths
    assert all(each.endswith(".py") for each in paths)
    assert not [each for each in paths if "site-packages" in each or "__pycache__" in each]


def test_one_file_is_a_corpus(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "top.md.d").mkdir()
    listing = Corpus.at(tmp_path / "top.md").walk()
    assert [each.path for each in listing.documents] == ["top.md"]


def test_a_link_that_is_named_is_followed(tmp_path):
    make_tree(tmp_path)
    assert len(Corpus.at(tmp_path / "alpha" / "loop").walk().documents) == 10
    (one,) = Corpus.at(tmp_path / "link.py").walk().documents
    assert one == Document("link.py", "link", (tmp_path / "alpha/one.py").stat().st_size)


def test_workers_that_stand_elsewhere_find_the_files_of_a_relative_path(tmp_path, monkeypatch):
    make_tree(tmp_path / "tree")
    monkeypatch.chdir(tmp_path)
    folder, file = Corpus.at("tree"), Corpus.at("tree/top.md")
    assert (folder.root, folder.title) == (tmp_path / "tree", "tree")
    assert (file.root, file.title, file.only) == (tmp_path / "tree", "tree/top.md", "top.md")


@pytest.mark.promise("processor-bad-input")
def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        Corpus.at(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"path must be a folder or a regular file, not .*pipe"):
        Corpus.at(tmp_path / "pipe")
    with pytest.raises(TypeError, match="path must be a path, not 3"):
        Corpus.at(3)  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_entered_is_kept_as_trouble(tmp_path, monkeypatch):
    make_tree(tmp_path)
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    listing = Corpus.at(tmp_path).walk()
    assert listing.troubles == (("beta/deep", "Permission denied"),)
    assert len(listing.documents) == 9


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 60))
def test_every_document_is_in_one_chunk(sizes, chunk_bytes):
    documents = [Document(f"p/{n}.py", "p", size) for n, size in enumerate(sizes)]
    chunks = plan(documents, "/root", chunk_bytes=chunk_bytes)
    entries = [entry for chunk in chunks for entry in chunk.entries]
    assert entries == [Entry(each.path, ("p",)) for each in documents]
    assert [chunk.number for chunk in chunks] == [*range(len(chunks))]
    assert sum(chunk.size for chunk in chunks) == sum(sizes)
    assert all(chunk.size >= chunk_bytes for chunk in chunks[:-1])
    assert all(chunk.root == "/root" and chunk.entries for chunk in chunks)


def test_chunks_need_a_size():
    with pytest.raises(ValueError, match="chunk_bytes must be a whole number >= 1, not 0"):
        plan([], "/", chunk_bytes=0)
