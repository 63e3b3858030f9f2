"""Fleets for the tests of ``top``."""

from __future__ import annotations

from aiopatterns.dashboard.overview import (
    InstanceView,
    Overview,
    OwnerView,
    QueueView,
    ServiceView,
    StreamView,
    WorkerView,
)


def queue(name="mail", *, throughput=12.5, paused=False) -> QueueView:
    return QueueView(
        name=name, queued=1200, scheduled=3, waiting=0, running=7, dead=1, paused=paused,
        workers=2, throughput=throughput, p50=0.0123, p99=1.5,
    )  # fmt: skip


def worker(name="mail", *, pid=41, age=75.0, **figures) -> WorkerView:
    return WorkerView(name=name, host="here", pid=pid, number="1", age=age, figures=figures)


def owner(kind="breaker", name="billing", **figures) -> OwnerView:
    return OwnerView(
        kind=kind, name=name, host="here", pid=41, number="1", age=5.0, figures=figures
    )


def instance(*, stale=False) -> InstanceView:
    return InstanceView(
        id="a1", host="10.0.0.1", port=80, state="up", zone=None, version="2", stale=stale
    )


def fleet(**kinds) -> Overview:
    named = {"queues": [], "workers": [], "owners": [], "services": [], "streams": [], **kinds}
    return Overview(at=1.0, backend="redis://here", actions=False, flows=[], **named)


def full() -> Overview:
    return fleet(
        queues=[queue(), queue("print", paused=True)],
        workers=[worker(processed=1234, failed=0, retried=2, running=7, p50=0.01, p99=0.2)],
        owners=[owner(state="open", calls=5, ratio=0.25, busy=True, nested={"a": 1}, nothing=None)],
        services=[ServiceView("users", [instance(), instance(stale=True)])],
        streams=[StreamView("orders", "billing", 42, 3)],
    )
