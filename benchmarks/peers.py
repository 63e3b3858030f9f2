"""Environments of the peers whose pins clash: one virtual environment each, under ``build/peers``.

``python -m benchmarks.peers [NAME ...]`` makes the missing ones (all, if none is named) with the
newest versions at or above the bounds below, and prints what stands. ``--fresh`` makes them anew.
A peer whose environment cannot be made, say without a network, is left out of every benchmark
with one line; nothing else depends on it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "build" / "peers"
LONGEST = 300.0  # seconds for one pip run


@dataclass(frozen=True, slots=True)
class Peer:
    """What one environment holds.

    Args:
        requirements: For pip: lower bounds only, so that the newest is measured.
        shown: The distributions whose versions belong beside a figure.
    """

    requirements: tuple[str, ...]
    shown: tuple[str, ...]


# hiredis and uvloop wherever the peer can use them: each runs as fast as it can.
PEERS = {
    "arq": Peer(("arq>=0.28", "hiredis>=3", "uvloop>=0.21"), ("arq", "redis")),
    "saq": Peer(
        # It imports typing_extensions without asking for it.
        ("saq[redis,hiredis]>=0.26.4", "typing_extensions>=4.12", "uvloop>=0.21"),
        ("saq", "redis"),
    ),
    "taskiq": Peer(
        ("taskiq[orjson]>=0.13", "taskiq-redis>=1.2.4", "hiredis>=3", "uvloop>=0.21"),
        ("taskiq", "taskiq-redis", "redis"),
    ),
    "streaq": Peer(("streaq>=7.2", "uvloop>=0.21"), ("streaq", "coredis")),
    "faststream": Peer(
        ("faststream[redis]>=0.6", "hiredis>=3", "uvloop>=0.21"), ("faststream", "redis")
    ),
    "docket": Peer(("pydocket>=0.27", "hiredis>=3", "uvloop>=0.21"), ("pydocket", "redis")),
}


@cache
def interpreter(name: str) -> str | None:
    """The Python of a peer's environment, made on first use; None with one line if it cannot be."""
    home = FOLDER / name
    python = home / "bin" / "python"
    ready = home / ".ready"
    wanted = "\n".join(PEERS[name].requirements)
    if python.exists() and ready.exists() and ready.read_text("utf-8") == wanted:
        return str(python)
    print(f"making the environment of {name} ...", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        _run([sys.executable, "-m", "venv", str(home)])
        _run([*pip, *PEERS[name].requirements])
    except (OSError, subprocess.SubprocessError) as error:
        words = getattr(error, "stderr", None) or str(error)
        print(f"{name} left out: {words.strip().splitlines()[-1]}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        return None
    ready.write_text(wanted, encoding="utf-8")
    return str(python)


def versions(name: str) -> dict[str, str]:
    """What a peer's environment holds, for the reports."""
    python = interpreter(name)
    if python is None:
        return {}
    code = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    told = _run([python, "-c", code, *PEERS[name].shown])
    return dict(json.loads(told))


def _run(command: list[str]) -> str:
    return subprocess.run(
        command, check=True, text=True, capture_output=True, timeout=LONGEST
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--fresh", action="store_true", help="make them anew, newest versions")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    for name in arguments.names or PEERS:
        if arguments.fresh:
            shutil.rmtree(FOLDER / name, ignore_errors=True)
        held = versions(name)
        if held:
            print(name, ", ".join(f"{key} {value}" for key, value in held.items()))


if __name__ == "__main__":
    main()
