"""Run every benchmark, one process each, and write ``docs/benchmarks.md``.

``python -m benchmarks [--rounds N] [--only WORD] [--quick]``
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import clock_text

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"

HEAD = """# Benchmarks

Written by `make bench`. Every case runs ours, the named peers and *the limit* (the bare loop that
does only the necessary work) interleaved in one run. A figure is the median of the rounds with its
smallest and largest, a ratio is the median of the ratios inside each round: on a noisy machine only
ratios of one run count, and less than 15 % is a tie. CPU time is of the process, without waiting.
Goals are those of the contract, set before anything was measured; one that was missed says so.
"""


def main() -> None:
    arguments = _arguments()
    files = sorted((ROOT / "benchmarks").glob("*/bench_*.py"))
    chosen = [path for path in files if arguments.only in path.as_posix()]
    pages = []
    with tempfile.TemporaryDirectory() as folder:
        for path in chosen:
            target = Path(folder, f"{path.parent.name}-{path.stem}.json")
            options = ["--quick"] if arguments.quick else ["--rounds", str(arguments.rounds)]
            module = f"benchmarks.{path.parent.name}.{path.stem}"
            command = [sys.executable, "-m", module, *options, "--json", str(target)]
            subprocess.run(command, cwd=ROOT, check=True)
            pages.append(json.loads(target.read_text("utf-8")))
    if not arguments.quick and not arguments.only:
        PAGE.write_text(render(pages), encoding="utf-8")
        print(f"\nwrote {PAGE.relative_to(ROOT)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="run the files whose path has this word")
    parser.add_argument("--quick", action="store_true", help="one round, writes nothing")
    return parser.parse_args()


def render(pages: list[dict]) -> str:
    """The page, from the reports of all files."""
    lines = [HEAD, *_environment(pages)]
    for page in pages:
        for loop, cases in page["loops"].items():
            lines.append(f"\n## {page['bench']}, {loop}\n")
            for case in cases:
                lines += _case(case)
    return "\n".join(lines) + "\n"


def _environment(pages: list[dict]) -> list[str]:
    versions: dict[str, str] = {}
    for page in pages:
        versions |= page["environment"]["versions"]
    first = pages[0]["environment"] if pages else {"python": "?", "system": "?", "machine": "?"}
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return [f"Python {first['python']}, {first['system']} {first['machine']}; {named}."]


def _case(case: dict) -> list[str]:
    lines = [
        f"**{case['case']}** ({case['unit']}{clock_text(case['clock'])})\n",
        "| | contender | median | min - max | ours, times this |",
        "|---|---|---|---|---|",
    ]
    for each in case["contenders"]:
        ratio = "" if each["role"] == "ours" else f"{each['ours_over_it']:.2f}"
        lines.append(
            f"| {each['role']} | {each['name']} | {each['median']:.3g} "
            f"| {each['min']:.3g} - {each['max']:.3g} | {ratio} |"
        )
    lines.append("")
    for goal in case["goals"]:
        verdict = "reached" if goal["met"] else "**missed**"
        lines.append(f"- {goal['ours']} at most {goal['bound']}: {goal['reached']:.3g}, {verdict}")
    return [*lines, ""]


if __name__ == "__main__":
    main()
