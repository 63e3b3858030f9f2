"""The public surface is frozen: every exported name with its shape stands in tests/exports.txt.

A change of the surface shows as a change of that file, written by ``make exports``.
"""

from __future__ import annotations

import enum
import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import aiopatterns
from aiopatterns import contrib

LISTED = Path(__file__).parent / "exports.txt"


def rooms() -> list[str]:
    """The front door, every room, and the adapters, which are imported by module."""
    found = [each.name for each in pkgutil.iter_modules(aiopatterns.__path__) if each.ispkg]
    found += [f"contrib.{each.name}" for each in pkgutil.iter_modules(contrib.__path__)]
    return ["aiopatterns", *(f"aiopatterns.{name}" for name in sorted(found))]


def surface() -> list[str]:
    lines = []
    for room in rooms():
        module = import_module(room)
        for name in sorted(module.__all__):
            lines.append(f"{room}.{name}{shape(getattr(module, name))}")
            if inspect.isclass(getattr(module, name)) and room != "aiopatterns":
                lines += members(f"{room}.{name}", getattr(module, name))
    return lines


def shape(value: object) -> str:
    """The signature of what can be called, else nothing."""
    if isinstance(value, type) and issubclass(value, enum.Enum):
        return " = " + " | ".join(each.name for each in value)
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return ""
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    return text if " at 0x" not in text else "(...)"


def members(path: str, cls: type) -> list[str]:
    """Public methods and properties that a class defines itself."""
    return [
        f"{path}.{name}{shape(inspect.unwrap(getattr(cls, name)))}"
        for name, value in sorted(vars(cls).items())
        if not name.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod)))
    ]


@pytest.mark.promise("habits-exports")
def test_the_public_surface_is_as_listed():
    expected = LISTED.read_text("utf-8").splitlines()
    assert surface() == expected, "if it is meant, run `make exports`"


def test_the_front_door_gives_every_name_it_lists():
    for name in aiopatterns.__all__:
        assert getattr(aiopatterns, name) is not None
    assert set(aiopatterns.__all__) <= set(dir(aiopatterns))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = aiopatterns.nothing


@pytest.mark.promise("habits-lazy-import")
def test_the_front_door_loads_nothing_but_itself():
    watched = ["anyio", "asyncio", "redis", "structlog", "msgspec", "rich", "uvloop"]
    code = f"import sys, aiopatterns; print([m for m in {watched!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.promise("habits-lazy-import")
def test_no_room_loads_what_only_some_of_its_users_need():
    heavy = ["redis", "structlog", "rich", "uvloop", "multiprocessing", "aiohttp"]
    # The test kit, and adapters that are of no use without their framework, may.
    free = (".testing", ".contrib.aiohttp", ".contrib.dask")
    light = [room for room in rooms() if not room.endswith(free)]
    imports = "; ".join(f"import {room}" for room in light)
    seen = f"print([m for m in {heavy!r} if m in sys.modules and m not in before])"
    code = f"import sys; before = set(sys.modules); {imports}; {seen}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":
    LISTED.write_text("\n".join(surface()) + "\n", encoding="utf-8")
