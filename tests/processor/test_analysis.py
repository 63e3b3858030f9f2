from __future__ import annotations

from collections import Counter
from math import log, log1p

from aiopatterns.processor import stages, tokens
from aiopatterns.processor.analysis import (
    TOP,
    add_counted,
    analyse,
    catalogue,
    entries,
)
from aiopatterns.processor.corpus import Corpus, Entry, Trouble, plan
from aiopatterns.processor.stages import Counted, Facts, Volume
from tests.processor.reference import make_tree, plain_count


def facts(path: str, size: int = 10, **more) -> Facts:
    package = path.partition("/")[0]
    return Facts(path, package, size=size, longest=size, digest=path.encode(), **more)


def bag(counts: dict[str, int]) -> tokens.Bag:
    return tokens.pack({term.encode(): count for term, count in counts.items()})


def test_the_catalogue_of_a_tree(tmp_path):
    listing = Corpus.at(make_tree(tmp_path)).walk()
    chunks = plan(listing.documents, tmp_path)
    found = catalogue(
        [each for chunk in chunks for each in stages.ingest(chunk)],
        skipped=listing.skipped,
        troubles=[Trouble("x", "no")],
    )
    plain = plain_count(tmp_path)
    assert len(found.texts) == plain.files
    assert [sorted(each) for each in found.duplicates] == plain.copies
    assert found.wasted == 2 * (tmp_path / "top.md").stat().st_size
    assert [*found.undecodable] == plain.undecodable
    assert [*found.binary] == plain.binary
    assert (found.skipped, found.troubles) == (2, (Trouble("x", "no"),))


def test_the_order_of_arrival_does_not_matter():
    files = [facts("b"), facts("a", kind="unreadable", reason="why"), facts("c")]
    assert catalogue(files) == catalogue(files[::-1])
    assert catalogue(files).troubles == (Trouble("a", "why"),)


def test_each_content_is_read_once_and_counted_for_each_copy():
    same = facts("a/1")
    copy = same._replace(path="b/2", package="b")
    found = catalogue([copy, same, facts("c/3", size=7), facts("c/empty", size=0)])
    assert found.duplicates == (("a/1", "b/2"),)
    assert [*entries(found)] == [(Entry("a/1", ("a", "b")), 10), (Entry("c/3", ("c",)), 7)]


def test_the_largest_waste_comes_first():
    def copies(path: str, size: int, number: int) -> list[Facts]:
        return [facts(path, size)._replace(path=f"{path}{n}") for n in range(number)]

    found = catalogue([*copies("a", 10, 2), *copies("b", 9, 3), *copies("c", 10, 2)])
    assert [group[0] for group in found.duplicates] == ["b0", "a0", "c0"]
    assert found.wasted == 18 + 10 + 10


def test_counts_of_a_package_add_up():
    packages: dict[str, dict[str, int]] = {}
    add_counted(packages, Counted((("a", bag({"x": 1})), ("b", bag({"y": 2}))), ()))
    assert add_counted(packages, Counted((("a", bag({"x": 2, "z": 1})),), ())) == {
        "a": {"x": 3, "z": 1},
        "b": {"y": 2},
    }


def test_the_whole():
    found = catalogue([facts("a/1"), facts("a/2", 20, lines=3), facts("b/1", 5), facts("c/1", 0)])
    packages = {
        "a": Counter({"common": 9, "special": 4, "it": 50}),
        "b": Counter({"common": 7, "other": 1}),
    }
    whole = analyse(
        found, packages, Counter({"name": 2}), volume=Volume(1, 2, 3), troubles=[Trouble("t", "w")]
    )
    assert (whole.files, whole.size, whole.lines) == (4, 35, 3)
    assert whole.words == {"common": 16, "special": 4, "it": 50, "other": 1}
    assert (whole.word_count, whole.name_count) == (71, 2)
    assert [*whole.top_words] == [("it", 50), ("common", 16), ("special", 4), ("other", 1)]
    assert [(each.name, each.files, each.size, each.words) for each in whole.packages] == [
        ("a", 2, 30, 63),
        ("b", 1, 5, 8),
        ("c", 1, 0, 0),
    ]
    assert [each.keywords for each in whole.packages] == [("special",), ("other",), ()]
    assert whole.troubles == (Trouble("t", "w"),)


def test_keywords_follow_the_formula():
    packages = {
        str(n): Counter({f"word{k}": (n * 7 + k * 3) % 11 for k in range(20)}) for n in range(6)
    }
    packages = {name: +counts for name, counts in packages.items()}
    found = catalogue([facts(name) for name in packages])
    whole = analyse(found, packages, {}, volume=Volume())
    spread = Counter(word for counts in packages.values() for word in counts)
    for package in whole.packages:
        scores = {
            word: log1p(count) * log(len(packages) / spread[word])
            for word, count in packages[package.name].items()
        }
        best = sorted(scores.values(), reverse=True)[: len(package.keywords)]
        assert [scores[word] for word in package.keywords] == best
        assert len(package.keywords) == 6


def test_ties_are_broken_by_the_text():
    counts = Counter({f"w{n:03}": 1 for n in range(3 * TOP)})
    whole = analyse(catalogue([]), {"p": counts}, counts, volume=Volume())
    assert [each.text for each in whole.top_words] == [f"w{n:03}" for n in range(TOP)]
    assert whole.top_names == whole.top_words


def test_outliers_are_far_above_the_others():
    files = [facts(f"p/{n}", 1000 + n) for n in range(50)]
    files += [facts("p/large", 10**6)._replace(longest=1020), facts("p/empty", 0)]
    (one,) = analyse(catalogue(files), {}, {}, volume=Volume()).outliers
    assert (one.path, one.what, one.value) == ("p/large", "size", 10**6)
    assert one.score > 100
    alike = [facts(f"p/{n}", 1000) for n in range(9)] + [facts("p/large", 5000)]
    assert analyse(catalogue(alike), {}, {}, volume=Volume()).outliers == ()
