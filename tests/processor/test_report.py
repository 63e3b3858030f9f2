from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from aiopatterns.processor.analysis import analyse, catalogue
from aiopatterns.processor.corpus import Trouble
from aiopatterns.processor.progress import Progress
from aiopatterns.processor.report import render_report
from aiopatterns.processor.stages import Facts, Volume
from tests.processor.records import make_progress

VOID = {"meta", "link", "img", "br", "hr", "input"}
NASTY = "<script src=//evil>&\"'\x1b\udcff"


class Page(HTMLParser):
    """Parses a page and insists that what is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.links += [value for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def make_analysis(number: int = 3, *, nasty: bool = False):
    files = [
        Facts(f"p{n}/{NASTY if nasty else 'file'}{n}", f"p{n}", size=n * n + 1, lines=n,
              longest=n + 1, digest=bytes([n % 7]))
        for n in range(number)
    ]  # fmt: skip
    files += [Facts(f"bad{n}", "bad", "undecodable", 5, digest=b"x%d" % n) for n in range(number)]
    files += [Facts(f"bin{n}", "bin", "binary") for n in range(number)]
    found = catalogue(files, troubles=[Trouble(NASTY, NASTY)] * number)
    packages = {f"p{n}": Counter({f"<b>&{n}": n + 1, "word": 9}) for n in range(number)}
    names = Counter({f"<i>{n}": n for n in range(number)})
    return analyse(found, packages, names, volume=Volume(5, 3, 2, 0))


@pytest.mark.promise("processor-self-contained")
def test_the_report_is_one_small_file_without_network():
    text = render_report(make_analysis(), make_progress(40), title="corpus", footer="v")
    page = Page(text)
    assert page.links == []
    assert not re.search(r"https?:|url\(|@import|<script|javascript:", text)
    assert len(text.encode()) < 1_000_000
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    assert page.tags["svg"] == 7
    assert page.tags["script"] == 0


@pytest.mark.promise("processor-self-contained")
def test_it_stays_small_whatever_the_corpus():
    text = render_report(make_analysis(3000), make_progress(600), title="large")
    Page(text)
    assert len(text.encode()) < 1_000_000
    assert "and 2970 more" in text


@pytest.mark.promise("processor-self-contained")
def test_it_stays_small_whatever_the_words():
    long = "acgt" * 250_000
    files = [Facts("dna", "dna", size=10**6, longest=10**6), Facts("b", "b", size=1, longest=1)]
    words = {"dna": {long: 9}, "b": {"b": 1}}
    whole = analyse(catalogue(files), words, {long: 9}, volume=Volume())
    assert long in whole.packages[0].keywords
    text = render_report(whole, Progress(), title="x")
    assert len(text.encode()) < 100_000
    assert "acgtacgt" in text


def test_text_from_files_is_escaped():
    text = render_report(make_analysis(nasty=True), make_progress(), title=NASTY)
    page = Page(text)
    assert page.tags["script"] == 0
    assert "\x1b" not in text
    text.encode()


def test_figures_are_in_the_text():
    text = " ".join(Page(render_report(make_analysis(), make_progress(), title="corpus")).words)
    for each in ("corpus", "6 files", "different words", "ingestion", "p50", "word"):
        assert each in text


def test_outliers_have_their_table():
    files = [Facts(f"p/{n}", "p", size=100 + n, longest=9) for n in range(40)]
    files.append(Facts("p/far", "p", size=10**8, longest=9))
    whole = analyse(catalogue(files), {}, {}, volume=Volume())
    words = Page(render_report(whole, Progress(), title="x")).words
    assert words[words.index("p/far") + 1] == "size 100 MB"


def test_the_report_of_nothing_is_a_page():
    nothing = analyse(catalogue([]), {}, {}, volume=Volume())
    page = Page(render_report(nothing, Progress(), title="nothing"))
    assert page.tags["svg"] == 0
    assert "none" in page.words
