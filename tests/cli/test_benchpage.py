from __future__ import annotations

from html.parser import HTMLParser

import pytest

from aiopatterns.cli.benchpage import render
from aiopatterns.cli.calibration import Measured

VOID = {"meta", "rect"}


class Checker(HTMLParser):
    """Complains about tags that do not match, and about what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert not {name for name, _ in attrs} & {"src", "href", "onload"}
        assert tag not in {"script", "link", "img"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data.strip())


@pytest.mark.parametrize("groups", [["flow"], ["flow", "over memory://", "<b>"]])
def test_a_page_is_whole_and_loads_nothing(groups):
    results = [
        Measured(group, f"<i>{number}", 5, (10.0**-number,) * 3)
        for group in groups
        for number in (0, 3, 9)
    ]
    page = render(results, {"python": "3.11 <b>"}, effort="3 repeats & more")
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    for each in ("<i>3", "1 ms", "1 k", "0%", "python 3.11 <b>", "3 repeats & more", groups[-1]):
        assert each in " ".join(checker.text)
    assert "<b>" not in page
    assert 'width="100.0"' in page
