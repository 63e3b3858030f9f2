from __future__ import annotations

from aiopatterns.processor.page import page


def test_texts_are_escaped_and_content_stands_as_it_is():
    text = page(title="<t>", subtitle="a & b", content="<p>{x}</p>", footer="<f>")
    assert "<title>&lt;t&gt;</title>" in text
    assert "<h1>&lt;t&gt;</h1><p>a &amp; b</p>" in text
    assert "<p>{x}</p>" in text
    assert "<footer>&lt;f&gt;</footer>" in text


def test_it_loads_nothing_and_a_style_of_ones_own_comes_last():
    text = page(title="t", subtitle="", content="", footer="", style=".mine { color: red }")
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in text
    assert text.index("--grid") < text.index(".mine { color: red }</style>")
    assert "src=" not in text.replace("default-src", "")
    assert "http:" not in text
