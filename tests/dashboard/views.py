"""Views with nothing in them but what a test names."""

from __future__ import annotations

from typing import Any

from aiopatterns.dashboard.overview import Overview, OwnerView, QueueView, WorkerView


def queue(name: str, **figures: Any) -> QueueView:
    plain: dict[str, Any] = dict.fromkeys(("queued", "scheduled", "waiting", "running", "dead"), 0)
    plain |= {"paused": False, "workers": 1, "throughput": 0.0, "p50": None, "p99": None}
    return QueueView(name=name, **(plain | figures))


def worker(number: str) -> WorkerView:
    return WorkerView(name="mail", host="h", pid=1, number=number, age=1.0, figures={})


def owner(number: str, state: Any, kind: str = "breaker") -> OwnerView:
    figures = {} if state is None else {"state": state}
    return OwnerView(kind=kind, name="x", host="h", pid=1, number=number, age=1.0, figures=figures)


def overview(at: float = 1.0, **parts: Any) -> Overview:
    empty: dict[str, Any] = {
        each: [] for each in ("queues", "workers", "owners", "services", "streams", "flows")
    }
    return Overview(at=at, backend="memory://", actions=False, **(empty | parts))
