"""Run every benchmark, one process each, and write ``docs/benchmarks.md``.

``python -m benchmarks [--rounds N] [--only WORD] [--quick] [--render]``

Reports are kept under ``build/benchmarks``. A file that fails does not stop the others: the page
names it, and this ends with 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import peers
from benchmarks.page import render

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
KEPT = ROOT / "build" / "benchmarks"


def main() -> int:
    arguments = _arguments()
    paths = sorted((ROOT / "benchmarks").glob("*/bench_*.py"))
    files = [f"{path.parent.name}/{path.stem}" for path in paths]
    chosen = [name for name in files if arguments.only in name]
    if not arguments.render:
        for name in chosen:
            _run(name, arguments)
    failed = [name for name in chosen if not _report(name).exists()]
    if not arguments.quick and not arguments.only:
        PAGE.write_text(_page([name for name in files if name not in failed], failed), "utf-8")
        print(f"\nwrote {PAGE.relative_to(ROOT)}")
    for name in failed:
        print(f"{name} FAILED", file=sys.stderr)
    return bool(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", default="", help="run files with this in room/file, write no page"
    )
    parser.add_argument("--quick", action="store_true", help="one round, writes no page")
    parser.add_argument("--render", action="store_true", help="run nothing, write the page anew")
    return parser.parse_args()


def _run(name: str, arguments: argparse.Namespace) -> None:
    """Run one file; it leaves a report if it comes to its end."""
    target = _report(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    options = ["--quick"] if arguments.quick else ["--rounds", str(arguments.rounds)]
    module = f"benchmarks.{name.replace('/', '.')}"
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", module, *options, "--json", str(target)], cwd=ROOT, check=False
    )
    print(f"\n{name} took {time.monotonic() - begun:.0f} s")


def _report(name: str) -> Path:
    return KEPT / f"{name.replace('/', '-')}.json"


def _page(names: list[str], failed: list[str]) -> str:
    reports = [json.loads(_report(name).read_text("utf-8")) for name in names]
    left_out = [name for name in peers.PEERS if peers.interpreter(name) is None]
    return render(reports, left_out=left_out, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
