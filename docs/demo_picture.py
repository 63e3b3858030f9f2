"""Make the picture of the demo that the README shows: ``make picture``.

The chaos act is played as ``aiopatterns demo`` plays it. Some of its moments become one SVG, which
moves by CSS alone, stands still for who wants less motion, follows the reader's choice of dark or
light, and loads nothing. The seed decides who is killed; how much was done by then is what this run
has shown.

``python docs/demo_picture.py [--out FILE] [--jobs N] [--seed N]``
"""

from __future__ import annotations

import argparse
import io
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from aiopatterns.cli.chaos import ChaosAct
from aiopatterns.cli.stage import drawn

if TYPE_CHECKING:
    from rich.console import RenderableType

    from aiopatterns.cli.scene import Act

OUT = Path(__file__).resolve().parent / "assets" / "demo.svg"
MOST_BYTES = 100_000
FRAMES = 8
EVERY = 0.4  # seconds between two moments that may become frames
SHOWN = 1.5  # seconds for which a frame is shown; the last one three times as long
WIDTH = 90

COLOURS = {
    "dark": TerminalTheme(
        (24, 26, 31),
        (222, 225, 230),
        [(90, 94, 102), (244, 110, 105), (88, 200, 130), (226, 180, 80), (100, 160, 250),
         (186, 148, 250), (84, 190, 220), (222, 225, 230)],
    ),
    "light": TerminalTheme(
        (251, 251, 250),
        (36, 38, 43),
        [(90, 94, 102), (190, 36, 36), (18, 120, 62), (150, 100, 0), (24, 90, 190),
         (110, 60, 170), (0, 108, 140), (36, 38, 43)],
    ),
}  # fmt: skip
# The parts of rich's picture of which ours is made.
PARTS = "{styles}\0{matrix}\0{width} {height} {char_height} {line_height} {terminal_x} {terminal_y}"
PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>{title}</title>
<style>
text {{ font: {size}px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; }}
.window {{ fill: {dark}; stroke: #8886; }}
{styles}
@media (prefers-color-scheme: light) {{
.window {{ fill: {light}; }}
{light_styles}
}}
.frame {{ visibility: hidden; }}
.last {{ visibility: visible; }}
@media (prefers-reduced-motion: no-preference) {{
{motion}
}}
</style>
<rect class="window" x="1" y="1" width="{inner_width}" height="{inner_height}" rx="10"/>
<circle cx="24" cy="22" r="7" fill="#ff5f57"/><circle cx="46" cy="22" r="7" fill="#febc2e"/><circle cx="68" cy="22" r="7" fill="#28c840"/>
{frames}
</svg>
"""


async def moments(act: Act) -> list[RenderableType]:
    """Play an act, and return what was to be seen from time to time, the end included."""
    seen: list[RenderableType] = []

    async def look() -> None:
        while True:
            seen.append(drawn(act))
            await anyio.sleep(EVERY)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await act.run()
        tasks.cancel_scope.cancel()
    return [*seen, drawn(act)]


def chosen(seen: list[RenderableType], count: int) -> list[RenderableType]:
    """Return so many of them, evenly, the first and the last among them."""
    last = len(seen) - 1
    return [seen[round(number * last / (count - 1))] for number in range(count)] if last else seen


def exported(frames: list[RenderableType], scheme: str) -> list[list[str]]:
    """Return styles, text and measures of each frame; a style of one name is the same in all."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    parts: list[list[str]] = []
    for number, frame in enumerate(frames):
        console.print(frame)
        told = console.export_svg(
            theme=COLOURS[scheme], code_format=PARTS, unique_id=f"f{number}", title=""
        )
        parts.append(told.split("\0"))
    return parts


def motion(count: int) -> str:
    """Return the rules by which one frame is shown after the other, for ever."""
    ends = [0.0, *(SHOWN * each for each in range(1, count)), SHOWN * (count + 2)]
    rules: list[str] = []
    for number, (begin, end) in enumerate(pairwise(ends)):
        after, before = (100 * each / ends[-1] for each in (end, begin))
        steps = "" if not number else "0% { visibility: hidden; } "
        steps += f"{before:.3f}% {{ visibility: visible; }}"
        steps += "" if number == count - 1 else f" {after:.3f}% {{ visibility: hidden; }}"
        rules.append(f"@keyframes k{number} {{ {steps} }}")
        rules.append(f".k{number} {{ animation: k{number} {ends[-1]:g}s step-end infinite; }}")
    return "\n".join(rules)


def picture(frames: list[RenderableType], title: str) -> str:
    """Return the SVG."""
    dark, light = (exported(frames, scheme) for scheme in COLOURS)
    width, height, size, _, left, top = map(float, dark[-1][2].split())
    groups = [
        f'<g class="frame k{number}{" last" * (number == len(dark) - 1)}"'
        f' transform="translate({left:g}, {top:g})">{_slim(matrix)}</g>'
        for number, (_, matrix, _) in enumerate(dark)
    ]
    return PICTURE.format(
        width=f"{width:g}",
        height=f"{height:g}",
        inner_width=f"{width - 2:g}",
        inner_height=f"{height - 2:g}",
        size=f"{size:g}",
        title=title,
        dark=COLOURS["dark"].background_color.hex,
        light=COLOURS["light"].background_color.hex,
        styles="\n".join(styles.strip() for styles, _, _ in dark),
        light_styles="\n".join(styles.strip() for styles, _, _ in light),
        motion=motion(len(frames)),
        frames="\n".join(groups),
    )


def _slim(matrix: str) -> str:
    """Leave out what is never seen: ends of lines, and clips that nothing reaches."""
    matrix = re.sub(r"<text[^>]*>\s*</text>", "", matrix)
    matrix = re.sub(r' clip-path="[^"]*"', "", matrix)
    return matrix.replace("&#160;", "\N{NO-BREAK SPACE}").replace("\n", "")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the picture of the demo.")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    parser.add_argument("--jobs", type=int, default=2_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    given = parser.parse_args()
    act = ChaosAct(jobs=given.jobs, seed=given.seed)
    frames = chosen(anyio.run(moments, act), FRAMES)
    if not act.well():
        raise SystemExit(f"no picture of this: {act.ending()}")
    svg = picture(frames, f"aiopatterns demo: {act.ending()}")
    if len(svg.encode()) > MOST_BYTES:
        raise SystemExit(f"the picture has {len(svg.encode()):,} bytes, {MOST_BYTES:,} are allowed")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(svg, encoding="utf-8")
    print(f"{given.out}: {len(frames)} frames, {len(svg.encode()):,} bytes; {act.ending()}")


if __name__ == "__main__":
    main()
