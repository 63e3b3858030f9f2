"""An orchestrator: tasks that depend on each other, on real files.

A release bundle of a package is made: list its files, then hash them and pack them side by side,
check the archive against the hashes, and write a manifest. A parameter's name is the task that it
comes from; ``after=`` orders without passing anything.

Run: python docs/examples/orchestrator.py [FOLDER]
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import zipfile
from pathlib import Path

from aiopatterns import Dag, Retry

release = Dag("release", limit=4, resources={"disk": 1})


@release.task
def files(package: Path) -> list[Path]:
    """What goes into the bundle."""
    return sorted(package.rglob("*.py"))


@release.task(retry=Retry(on=OSError, attempts=3))
def hashes(files: list[Path]) -> dict[str, str]:
    """The digest of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@release.task(resources={"disk": 1}, timeout=30)
def archive(files: list[Path], target: Path) -> Path:
    """All files, packed."""
    bundle = target / "bundle.zip"
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            packed.write(path, path.name)
    return bundle


@release.task
def verified(archive: Path, hashes: dict[str, str]) -> int:
    """Unpack in memory and compare with the originals."""
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        found = {name: hashlib.sha256(packed.read(name)).hexdigest() for name in names}
    assert found == hashes
    return len(found)


@release.task(after=[verified], resources={"disk": 1}, priority=1)
def manifest(hashes: dict[str, str], target: Path) -> Path:
    """Only a checked bundle gets its manifest."""
    path = target / "manifest.json"
    path.write_text(json.dumps(hashes, indent=1), encoding="utf-8")
    return path


async def main(target: Path) -> None:
    """Run the graph once and print its order."""
    package = Path(json.__file__).parent
    run = await release.run(inputs={"package": package, "target": target})
    assert run[verified] == len(run[files]) > 0
    assert json.loads(run[manifest].read_text(encoding="utf-8")) == run[hashes]
    print(f"{run[verified]} files checked, {run[archive].stat().st_size:,} bytes packed")
    print(", ".join(f"{name}: {state.name}" for name, state in run.states.items()))
    print(release.to_mermaid())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()))
