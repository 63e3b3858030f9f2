"""The main job as a plain loop: the same fast functions, one file after the other.

This is what the figures of :mod:`benchmarks.processor.bench_system` are measured against. It reads
each file once, keeps everything in memory and packs nothing, as one would who had one processor.

``python -m benchmarks.processor.serial [PATH]`` runs it as a program of its own.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from aiopatterns.processor import stages, tokens
from aiopatterns.processor.analysis import Analysis, Catalogue, analyse, catalogue
from aiopatterns.processor.corpus import Corpus, Document
from aiopatterns.processor.stages import Facts, Volume


def run(corpus: Corpus) -> Analysis:
    """Do all of it; the result equals that of the system."""
    listing = corpus.walk()
    facts: list[Facts] = []
    names: Counter[bytes] = Counter()
    packages: dict[str, Counter[bytes]] = {}
    volume = [0, 0, 0, 0]
    for document in listing.documents:
        data = Path(corpus.root, document.path).read_bytes()
        found = stages.examine([data] if data else [])
        facts.append(found._replace(path=document.path, package=document.package))
        if found.kind != "binary":
            process(document, data, names, volume)
            packages.setdefault(document.package, Counter()).update(tokens.words(data))
    return finish(catalogue(facts, skipped=listing.skipped), packages, names, volume)


def process(document: Document, data: bytes, names: Counter[bytes], volume: list[int]) -> None:
    """Take one file apart and count its names."""
    text = data.decode("utf-8", "replace")
    if not document.path.endswith((".py", ".pyi", ".pyw")):
        volume[3] += len(text)
        return
    parts = tokens.take_apart(text)
    for kind, size in enumerate(parts[1:]):
        volume[kind] += size
    names.update(tokens.names(parts.code))


def finish(
    found: Catalogue,
    packages: dict[str, Counter[bytes]],
    names: Counter[bytes],
    volume: list[int],
) -> Analysis:
    """Look at the whole, with the system's own functions."""
    texts = {
        package: {word.decode(): count for word, count in counts.items()}
        for package, counts in packages.items()
        if counts
    }
    named = {name.decode(): count for name, count in tokens.tidy(names).items()}
    return analyse(found, texts, named, volume=Volume(*volume))


def analysis(corpus: Corpus, found: Catalogue, names: dict[str, int], volume: Volume) -> Analysis:
    """Do the analysis stage alone: read, find words, count, look at the whole."""
    packages: dict[str, Counter[bytes]] = {}
    for each in found.texts:
        data = Path(corpus.root, each.path).read_bytes()
        packages.setdefault(each.package, Counter()).update(tokens.words(data))
    texts = {
        package: {word.decode(): count for word, count in counts.items()}
        for package, counts in packages.items()
        if counts
    }
    return analyse(found, texts, names, volume=volume)


if __name__ == "__main__":
    begun = time.perf_counter()
    chosen = Corpus.at(sys.argv[1]) if len(sys.argv) > 1 else Corpus.standard_library()
    result = run(chosen)
    print(f"{result.files} files, {result.word_count} words, {time.perf_counter() - begun:.2f} s")
