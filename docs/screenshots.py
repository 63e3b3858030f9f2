"""Take the pictures of the dashboard that the docs show: ``python -m docs.screenshots``.

They show a fleet that is made up (tests/dashboard/stage.py), in a headless Chromium.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

from PIL import Image

from tests.dashboard.browser import chromium, served, visit
from tests.dashboard.stage import Stage, application

FOLDER = Path(__file__).parent / "images"
SHOTS: tuple[tuple[str, Literal["light", "dark"], int], ...] = (
    ("overview", "light", 1280),
    ("overview", "dark", 1280),
    ("flows", "light", 1280),
    ("patterns", "dark", 390),
)


def main() -> None:
    """Write each picture."""
    FOLDER.mkdir(exist_ok=True)
    stage = Stage()
    stage.foreign = "thumbnails"
    with served(application(stage)) as server, chromium() as page:
        for section, scheme, wide in SHOTS:
            with visit(page, server.url, wide=wide, scheme=scheme):
                page.evaluate("name => (location.hash = name)", section)
                page.wait_for_timeout(1_500)
                path = FOLDER / f"dashboard-{section}-{scheme}.png"
                picture = Image.open(io.BytesIO(page.screenshot()))
                picture.convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE).save(
                    path, optimize=True
                )
                print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
