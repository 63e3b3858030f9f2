"""An image pipeline on real photographs: load, resize, sharpen, save, four stages in a chain.

Reading and writing wait for the disk, resizing and filtering are work for threads: each stage has
the workers it needs, and the bounded buffers between them keep only a few pictures in memory.

Run: python docs/examples/images.py [FOLDER]   (needs pillow and scikit-image)
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

import skimage
from PIL import Image, ImageFilter

from aiopatterns import Pipeline
from aiopatterns.flow import Threads

WIDTH = 160
PHOTOGRAPHS = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "moon.png"]


@dataclass(frozen=True)
class Picture:
    """A picture on its way."""

    name: str
    image: Image.Image


def load(path: Path) -> Picture:
    """Decode one file."""
    with Image.open(path) as image:
        return Picture(path.stem, image.convert("RGB"))


def resize(picture: Picture) -> Picture:
    """Make it ``WIDTH`` wide; the sides keep their ratio."""
    height = round(picture.image.height * WIDTH / picture.image.width)
    return Picture(picture.name, picture.image.resize((WIDTH, height), Image.Resampling.LANCZOS))


def sharpen(picture: Picture) -> Picture:
    """Bring out the edges."""
    return Picture(
        picture.name, picture.image.filter(ImageFilter.UnsharpMask(radius=1, percent=120))
    )


async def main(target: Path) -> None:
    """Send all photographs through the chain and look at what came out."""
    folder = Path(skimage.__file__).parent / "data"
    photographs = [folder / name for name in PHOTOGRAPHS if (folder / name).is_file()]
    assert len(photographs) >= 2, "scikit-image ships photographs"

    def save(picture: Picture) -> Path:
        path = target / f"{picture.name}.png"
        picture.image.save(path)
        return path

    pipe = (
        Pipeline(photographs)
        .map(load, workers=2, executor=Threads(2))
        .map(resize, workers=2, executor=Threads(2))
        .map(sharpen, workers=2, executor=Threads(2))
        .map(save, workers=2, executor=Threads(2))
    )
    saved: list[Path] = []

    async def note(path: Path) -> None:
        saved.append(path)

    report = await pipe.run(into=note)
    assert [path.stem for path in saved] == [path.stem for path in photographs]
    for source, path in zip(photographs, saved, strict=True):
        check(source, path)
    for stage in report.stages:
        print(f"{stage.name:<10} {stage.processed} pictures, p50 {stage.p50 or 0:.3f} s")
    print(f"{len(saved)} pictures, {WIDTH} pixels wide, in the order they came")


def check(source: Path, path: Path) -> None:
    """The small picture has the right size and, on average, the colours of the large one."""
    with Image.open(source) as before, Image.open(path) as after:
        assert after.size == (WIDTH, round(before.height * WIDTH / before.width))
        one = before.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        other = after.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(one, tuple)
    assert isinstance(other, tuple)
    assert all(abs(a - b) <= 3 for a, b in zip(one, other, strict=True)), (one, other)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()))
