"""One page for all reports: a file that opens anywhere, without a server and without a network.

Style and plots are inside; nothing is loaded, nothing is run, and a policy in the page says so to the
browser, should a text from a file ever slip through as markup.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Final

__all__ = ["page"]

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{title}</h1><p>{subtitle}</p></header>
<main>
{content}
</main>
<footer>{footer}</footer>
</body>
</html>
"""


def page(*, title: str, subtitle: str, content: str, footer: str, style: str = "") -> str:
    """Return a whole page.

    Args:
        title: As text, like ``subtitle`` and ``footer``.
        subtitle: Below the title.
        content: As HTML, escaped by its maker.
        footer: At the end.
        style: Rules of CSS behind those that all pages have.
    """
    common = files("aiopatterns.processor").joinpath("report.css").read_text("utf-8")
    return _PAGE.format(
        title=escape(title),
        subtitle=escape(subtitle),
        content=content,
        footer=escape(footer),
        style=common + style,
    )
