"""A server of the dashboard's pages whose fleet is made up: every piece of a page has something to show.

It speaks the interface of :mod:`aiopatterns.dashboard.routes`, without a backend, so that a test
says what there is and what goes wrong, and when.
"""

from __future__ import annotations

import json
import math
import random
import time
from functools import cache
from importlib.resources import files
from typing import Any

import anyio
import jinja2
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
#: Markup in every text that others have written.
EVIL = "<img src=x onerror=alert(1)>"
QUEUES = ("mail", "images", "billing", "reports")


def noise(name: str, at: float) -> float:
    """Between 0 and 1, the same for the same second, and not far from the second before."""
    return sum(dice(name, int(at) - back) for back in range(5)) / 5


@cache
def dice(name: str, second: int) -> float:
    return random.Random(f"{name} {second}").random()


def queue(name: str, at: float, number: int, *, paused: bool = False) -> dict[str, Any]:
    busy = 1 + 0.25 * math.sin(at / (90 + 37 * number) + number)
    pace, depth, late = (noise(f"{name} {each}", at) for each in ("pace", "depth", "late"))
    return {
        "name": name,
        "queued": int((180, 40, 12, 90)[number] * busy * (0.5 + depth)),
        "scheduled": 12 * number,
        "waiting": 3 * (number % 2),
        "running": 0 if paused else 3 + int(4 * pace),
        "dead": (3, 0, 1, 0)[number],
        "paused": paused,
        "workers": (2, 1, 1, 1)[number],
        "throughput": 0.0
        if paused
        else round((150, 84, 46, 12)[number] * busy * (0.8 + 0.4 * pace), 3),
        "p50": 0.012 * (number + 1) * (0.9 + 0.2 * late),
        "p99": 0.085 * (number + 1) * (0.7 + 0.6 * late) * busy,
    }


def owner(kind: str, name: str, figures: dict[str, Any], number: int = 0) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "host": "shop-7f9c",
        "pid": 4100 + number,
        "number": f"{kind}{name}{number}",
        "age": 5400.0 + number,
        "figures": figures,
    }


OWNERS = [
    owner(
        "breaker",
        "payments",
        {"state": "open", "failure_ratio": 0.62, "calls": 1204, "rejected": 310, "opened": 3},
    ),
    owner(
        "breaker",
        "stock",
        {"state": "closed", "failure_ratio": 0.01, "calls": 8821, "rejected": 0, "opened": 0},
    ),
    owner(
        "breaker",
        "geocoder",
        {"state": "half_open", "failure_ratio": 0.3, "calls": 92, "rejected": 41, "opened": 1},
    ),
    owner("limiter", "partner-api", {"limit": 50, "in_flight": 41, "queued": 7, "rejected": 18}),
    owner(
        "cache",
        "products",
        {
            "hits": 91_422,
            "misses": 6_310,
            "loads": 6_204,
            "joins": 88,
            "stale": 12,
            "evictions": 410,
            "errors": 3,
            "size": 10_000,
        },
    ),
    owner(
        "peer",
        "ranking",
        {
            "state": "running",
            "requests": 5120,
            "p50": 0.0031,
            "p99": 0.021,
            "members": {"ranking-1": "alive", "ranking-2": "suspect"},
            "links": {"a": {"sent": 10}},
        },
    ),
    owner(
        "pool",
        EVIL,
        {
            "accepted": 40,
            "done": 31,
            "failed": 1,
            "queued": 4,
            "running": 4,
            "limit": 4,
            "p50": 0.2,
        },
    ),
]
WORKERS = [
    owner(
        "worker",
        f"{name}-{number}",
        {
            "processed": 120_310 + number * 991,
            "failed": number,
            "retried": 40 + number,
            "running": 3,
            "steps": 991,
            "p50": 0.012,
            "p95": 0.06,
            "p99": 0.11,
            "queues": {name: {}},
        },
        number,
    )
    for number, name in enumerate(("mail", "mail", "images", "billing", "reports"))
]
SERVICES: list[dict[str, Any]] = [
    {
        "service": "ranking",
        "instances": [
            {
                "id": f"ranking-{number}",
                "host": f"10.0.3.{number}",
                "port": 7400,
                "state": state,
                "zone": "eu-1a",
                "version": "2.4.1",
                "stale": number == 4,
            }
            for number, state in enumerate(("up", "up", "draining", "up", "unknown"))
        ],
    },
    {"service": "search", "instances": []},
]
GROUPS = {"billing": 41, "search-index": 1804}


def stream(group: str, at: float) -> dict[str, Any]:
    lag = int(GROUPS[group] * (0.6 + 0.8 * noise(group, at)))
    return {"name": "orders", "group": group, "lag": lag, "pending": lag // 10}


def flow(kind: str, name: str, id: str, nodes: str, edges: str) -> dict[str, Any]:
    """Nodes as ``a:done b:running``, edges as ``a>b``."""
    split = [each.rpartition(":") for each in nodes.split()]
    return {
        "kind": kind,
        "name": name,
        "id": id,
        "nodes": [
            {"id": one, "state": state, "label": one.replace("_", " ")} for one, _, state in split
        ],
        "edges": [each.split(">") for each in edges.split()],
    }


FLOWS = [
    flow(
        "dag",
        "nightly report",
        "run-2031",
        "fetch_orders:done fetch_customers:done fetch_rates:failed join:running clean_addresses:done convert:skipped enrich_from_partners:pending render:pending send:pending archive:pending",
        "fetch_orders>join fetch_customers>clean_addresses clean_addresses>join fetch_rates>convert convert>render join>enrich_from_partners enrich_from_partners>render fetch_orders>archive render>send send>archive",
    ),
    flow(
        "saga",
        "checkout",
        "order-77120",
        "reserve:compensated charge:compensated ship:failed notify:pending",
        "reserve>charge charge>ship ship>notify",
    ),
    flow(
        "pipeline",
        "ingest",
        "",
        "read:running parse:running write:running",
        "read>parse parse>write",
    ),
]


def letter(number: int) -> dict[str, Any]:
    return {
        "id": f"01J{number:06d}",
        "queue": "mail",
        "name": ("send_receipt", "send_reminder", EVIL)[number % 3],
        "arguments": f"to='customer-{number}@example.com', order={number}, note='{EVIL}'",
        "attempts": 5,
        "error": {
            "type": "ConnectionRefusedError",
            "message": f"[Errno 111] smtp.example.com refused {EVIL}",
            "traceback": 'Traceback (most recent call last):\n  File "shop/mail.py", line 41, in send_receipt\n    await smtp.send(message)\nConnectionRefusedError: [Errno 111]',
        },
        "died_at": time.time() - 40 * (number + 1),
    }


def job(name: str, state: str, number: int) -> dict[str, Any]:
    return {
        "id": f"01K{state[0]}{number:06d}",
        "queue": name,
        "name": EVIL
        if number == 2
        else ("send_receipt", "send_reminder", "send_digest")[number % 3],
        "state": state,
        "attempts": number % 3,
        "enqueued_at": time.time() - 7 * number - 1,
        "at": time.time() + 90 if state == "scheduled" else None,
    }


class Stage:
    """What the server tells, for the test to set.

    Attributes:
        actions: Whether the page may change something.
        empty: Whether there is nothing at all.
        away: What the backend says instead of answering; empty: it answers.
        locked: Whether the token is no longer good.
        orders: What the page has asked for: (action, body).
        lines: Lines of the event log.
        foreign: What stands where others have written markup.
        viewers: Pages that get live figures.
    """

    def __init__(self) -> None:
        self.actions = True
        self.empty = False
        self.away = ""
        self.locked = False
        self.dead = [letter(number) for number in range(3)]
        self.paused: set[str] = set()
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.foreign = EVIL
        self.viewers = 0
        self.lines = [
            {
                "at": time.time() - 8,
                "level": "info",
                "event": "worker.joined",
                "text": "worker mail-1 has joined",
                "source": "shop-7f9c 4101",
            },
            {
                "at": time.time() - 5,
                "level": "warning",
                "event": "breaker.open",
                "text": "breaker payments: closed -> open",
                "source": "shop-7f9c 4100",
            },
            {
                "at": time.time() - 2,
                "level": "error",
                "event": "queue.dead_letters",
                "text": f"1 more dead letters in queue mail, 3 in all {EVIL}",
                "source": "mail",
            },
        ]

    def overview(self) -> dict[str, Any]:
        at = time.time()
        kept: dict[str, Any] = {
            "queues": [
                queue(name, at, number, paused=name in self.paused)
                for number, name in enumerate(QUEUES)
            ],
            "workers": WORKERS,
            "owners": OWNERS,
            "services": SERVICES,
            "streams": [stream(group, at) for group in GROUPS],
            "flows": FLOWS,
        }
        if kept["queues"]:
            kept["queues"][0]["dead"] = len(self.dead)
        if self.empty:
            kept = {name: [] for name in kept}
        return {
            "at": at,
            "backend": "redis://shop:***@redis.internal:6379/0",
            "actions": self.actions,
            **kept,
        }

    def history(self) -> dict[str, Any]:
        if self.empty:
            return {"at": [], "queues": {}, "streams": {}}
        at = [time.time() - 480 + each for each in range(480)]
        queues = {
            name: [queue(name, each, number) for each in at] for number, name in enumerate(QUEUES)
        }
        kept = ("throughput", "p50", "p99", "queued", "running", "dead")
        return {
            "at": at,
            "queues": {
                name: {what: [each[what] for each in rows] for what in kept}
                for name, rows in queues.items()
            },
            "streams": {
                f"orders/{group}": [stream(group, each)["lag"] for each in at] for group in GROUPS
            },
        }

    def page(self, asked) -> dict[str, Any]:
        found = [job(asked["queue"], asked["state"], number) for number in range(60)]
        found = [each for each in found if asked.get("name", "") in ("", each["name"])]
        start = int(asked.get("after") or 0)
        rest = start + 50 < len(found)
        return {"jobs": found[start : start + 50], "after": str(start + 50) if rest else None}

    def detail(self, queue: str, id: str) -> dict[str, Any]:
        for each in self.dead:
            if each["id"] == id:
                return {
                    **each,
                    "state": "dead",
                    "enqueued_at": time.time() - 900,
                    "at": each["died_at"],
                    "age": 900.0,
                    "progress": 0.4,
                    "correlation_id": "req-88",
                    "dependencies": None,
                }
        row = job(queue, "queued", int(id[4:]))
        return {
            **row,
            "arguments": f"order=1, note='{EVIL}'",
            "error": None,
            "age": 3.0,
            "progress": None,
            "correlation_id": None,
            "dependencies": ["01Kq1", "01Kq2"],
        }

    def act(self, action: str, order: dict[str, Any]) -> int:
        self.orders.append((action, order))
        if action in {"pause", "resume"}:
            (self.paused.add if action == "pause" else self.paused.discard)(order["queue"])
            return 0
        before = len(self.dead)
        if action in {"requeue", "purge"}:
            self.dead = (
                []
                if order.get("all")
                else [each for each in self.dead if each["id"] not in order["ids"]]
            )
            return before - len(self.dead)
        return len(order["ids"])

    def encoded(self, value: object) -> str:
        return json.dumps(value).replace(EVIL, self.foreign)

    async def stream(self):
        self.viewers += 1
        try:
            yield b"retry: 1000\n\n"
            for number, each in enumerate(self.lines, 1):
                yield f"event: log\nid: {number}\ndata: {self.encoded(each)}\n\n".encode()
            while not self.locked:
                yield self._look().encode()
                await anyio.sleep(0.5)
        finally:
            self.viewers -= 1

    def _look(self) -> str:
        if self.away:
            return f"event: outage\ndata: {json.dumps({'error': self.away})}\n\n"
        return f"event: overview\ndata: {self.encoded(self.overview())}\n\n"


def application(stage: Stage) -> Starlette:
    """Return the server of ``stage``."""
    here = files("aiopatterns.dashboard")
    template = jinja2.Environment(autoescape=True).from_string(
        (here / "templates" / "dashboard.html").read_text("utf-8")
    )

    def told(value: object) -> Response:
        if stage.locked:
            return JSONResponse({"error": "no token"}, 401)
        if stage.away:
            return JSONResponse({"error": stage.away}, 503)
        return Response(stage.encoded(value), media_type="application/json")

    async def page(request):
        html = template.render(root=request.scope.get("root_path", ""))
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def static(request):
        name = request.path_params["name"]
        body = (here / "static" / name).read_bytes()
        return Response(body, media_type=TYPES[name.rpartition(".")[2]])

    async def live(request):
        if stage.locked:
            return JSONResponse({"error": "no token"}, 401)
        return StreamingResponse(stage.stream(), media_type="text/event-stream")

    async def overview(request):
        return told(stage.overview())

    async def history(request):
        return told(stage.history())

    async def jobs(request):
        return told(stage.page(request.query_params))

    async def detail(request):
        return told(stage.detail(**request.path_params))

    async def dead(request):
        return told({"letters": stage.dead if request.query_params["queue"] == "mail" else []})

    async def act(request):
        return told({"done": stage.act(request.path_params["action"], await request.json())})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/static/{name}", static),
            Route("/api/live", live),
            Route("/api/overview", overview),
            Route("/api/history", history),
            Route("/api/jobs", jobs),
            Route("/api/jobs/{queue}/{id}", detail),
            Route("/api/dead", dead),
            Route("/api/actions/{action}", act, methods=["POST"]),
        ]
    )
