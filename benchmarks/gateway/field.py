"""What the benchmark of the gateway runs: a service, proxies before it, and load, all processes."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import urllib.request
from functools import cache
from typing import Any

from benchmarks.gateway.peers.proxies import token
from benchmarks.gateway.upstream import LENGTH

CONNECTIONS = 32
WARM = 0.5


def started(*command: str) -> int:
    """Start a program of this folder; return the port that it prints."""
    line = [sys.executable, "-m", *command]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    assert process.poll() is None
    return port


@cache
def upstream() -> str:
    """URL of the one service."""
    return f"http://127.0.0.1:{started('benchmarks.gateway.upstream')}"


@cache
def proxy(name: str) -> int:
    """Port of a proxy; it runs until this process ends, and idles while others are measured."""
    return started("benchmarks.gateway.peers.proxies", name, upstream())


def cpu(port: int) -> float:
    """CPU seconds of a proxy so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/cpu", timeout=10) as answer:
        return float(answer.read())


def load(port: int, seconds: float) -> dict[str, Any]:
    """Load a proxy; every answer is checked."""
    words = [str(port), "/api/items/7", str(CONNECTIONS), str(seconds), str(LENGTH)]
    command = [sys.executable, "-m", "benchmarks.gateway.load", *words]
    command.append(f"Authorization=Bearer {token()}")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def measured(name: str, seconds: float) -> dict[str, float]:
    """Microseconds of the proxy's CPU for each request, and what the load saw."""
    port = proxy(name)
    load(port, WARM)
    before = cpu(port)
    seen = load(port, seconds)
    used = cpu(port) - before
    return seen | {"us": used / seen["requests"] * 1e6, "rps": seen["requests"] / seen["seconds"]}
