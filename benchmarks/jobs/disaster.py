"""Two disasters, and what is left of 1,000 jobs: ``make disaster``.

Every library runs with its default settings, but for ten jobs at once, against a server of its own
with ``appendonly yes, appendfsync everysec``. A job sleeps 20 ms and then appends its id to a file,
in one unbuffered write. When a third have done so (no multiple of anybody's batch) and the next
ones are half way, either the worker is killed by ``kill -9`` and a new one started at once, or the
server is killed by ``kill -9`` and started again over its files a second later. Counted 25 s after
the kill:

done
    jobs that have run to their end at least once;
twice
    ends beyond the first of a job;
lost for good
    jobs that have not, and that the library will not run any more: asked of its own structures,
    not guessed from the time they took;
worker
    whether the process of the worker command still lives;
all done
    seconds from the kill to the end of the last job.

A server that waits for a slow fsync holds what it has acknowledged in memory, and loses it when it
is killed; how many bytes that were is in the JSON, and under the table if there were any.

``python -m benchmarks.jobs.disaster [--only NAME] [--watch SECONDS] [--json FILE]``; a longer watch
shows what comes back later than that.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from aiopatterns.backends.redis.embedded import RedisServer
from benchmarks.jobs.contenders import Contender, Worker, free_port, ours_and_peers

JOBS = 1000
CONCURRENCY = 10
STRUCK_AT = 333
WATCH = 25.0
AWAY = 1.0  # seconds without a server
PATIENCE = 60.0  # seconds until the disaster's moment must have come
LOOK = 0.002  # seconds between two looks at the ledger
HALF_WAY = 0.01  # into a job of 20 ms
AOF = {"appendonly": "yes", "appendfsync": "everysec"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one disaster has left."""

    contender: str
    disaster: str
    done: int
    twice: int
    lost: int
    alive: bool
    all_done: float | None
    unwritten: int


class Scene:
    """One contender with its server, its ledger and the workers it has had."""

    def __init__(self, contender: Contender, server: RedisServer, folder: Path) -> None:
        self.contender = contender
        self.server = server
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.log = (folder / "log").open("w", encoding="utf-8")
        self.workers: list[Worker] = []
        self.unwritten = 0

    def start_worker(self) -> None:
        """Start one more, as a supervisor would."""
        started = self.contender.worker(
            self.server.tcp_url, self.ledger, self.log, concurrency=CONCURRENCY
        )
        self.workers.append(started)

    def ends(self) -> list[str]:
        """The ids of all jobs that have ended, in that order."""
        return self.ledger.read_text("utf-8").split()

    def wait(self, count: int, seconds: float) -> float | None:
        """Wait until so many jobs have ended; seconds that took, None if they do not."""
        start = time.monotonic()
        while (spent := time.monotonic() - start) < seconds:
            if len(set(self.ends())) >= count:
                return spent
            if not self.workers[-1].alive:
                return None
            time.sleep(LOOK)
        return None

    def lost(self) -> int:
        """Jobs that have not ended and never will."""
        missing = {f"job-{number:06d}" for number in range(JOBS)} - set(self.ends())
        if not missing:
            return 0
        held = self.contender.call(self.server.tcp_url, "held", told=sorted(missing))
        return len(missing - set(held) - set(self.ends()))  # some end while we ask

    def close(self) -> None:
        """Leave no process behind."""
        for worker in self.workers:
            worker.kill()
        self.log.close()


def kill_worker(scene: Scene) -> None:
    """The worker dies, a new one comes at once."""
    scene.workers[-1].kill()
    scene.start_worker()


def kill_server(scene: Scene) -> None:
    """The server dies, and is back over its files a second later."""
    info = str(scene.server.command("INFO", "persistence"))
    scene.server.kill()
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    scene.unwritten = int(fields["aof_buffer_length"])
    time.sleep(AWAY)
    scene.server.restart()


DISASTERS: dict[str, Callable[[Scene], None]] = {
    "worker kill -9, a new one at once": kill_worker,
    "Redis kill -9, back after 1 s": kill_server,
}


@contextmanager
def staged(contender: Contender) -> Iterator[Scene]:
    """A contender with 1,000 jobs on a server of its own; all of it goes in the end."""
    folder = Path(tempfile.mkdtemp(prefix="disaster-"))
    try:
        with RedisServer(port=free_port(), config=AOF) as server:
            contender.call(server.tcp_url, "enqueue", "work", JOBS, concurrency=CONCURRENCY)
            scene = Scene(contender, server, folder)
            try:
                yield scene
            finally:
                scene.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def strike(contender: Contender, disaster: str, watch: float) -> Outcome:
    """Stage one disaster and count."""
    with staged(contender) as scene:
        scene.start_worker()
        if scene.wait(STRUCK_AT, PATIENCE) is None:
            words = Path(scene.log.name).read_text("utf-8")[-2000:]
            raise RuntimeError(f"{contender.name} did not get to {STRUCK_AT} jobs:\n{words}")
        time.sleep(HALF_WAY)
        struck = time.monotonic()
        DISASTERS[disaster](scene)
        passed = time.monotonic() - struck
        took = scene.wait(JOBS, watch - passed)
        time.sleep(max(0.0, struck + watch - time.monotonic()))  # for those that come twice
        ends = scene.ends()
        return Outcome(
            contender=contender.name,
            disaster=disaster,
            done=len(set(ends)),
            twice=len(ends) - len(set(ends)),
            lost=scene.lost(),
            alive=scene.workers[-1].alive,
            all_done=None if took is None else round(took + passed, 1),
            unwritten=scene.unwritten,
        )


def table(disaster: str, outcomes: Sequence[Outcome], versions: dict[str, dict]) -> str:
    """One disaster, in Markdown."""
    lines = [
        f"**{disaster}** ({JOBS:,} jobs of 20 ms, {CONCURRENCY} at once, struck at {STRUCK_AT})\n",
        "| | done | twice | lost for good | worker | all done |",
        "|---|---|---|---|---|---|",
    ]
    notes: list[str] = []
    for each in outcomes:
        if each.disaster == disaster:
            version = next(iter(versions[each.contender].values()))
            last = "no" if each.all_done is None else f"after {each.all_done} s"
            alive = "alive" if each.alive else "**gone**"
            lines.append(
                f"| {each.contender} {version} | {each.done} | {each.twice} | {each.lost} "
                f"| {alive} | {last} |"
            )
            if each.unwritten:
                notes.append(
                    f"{each.contender}: the server lost {each.unwritten} bytes it had acknowledged"
                )
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def main() -> None:
    arguments = _arguments()
    wanted = arguments.only or [""]
    chosen = [each for each in ours_and_peers() if any(word in each.name for word in wanted)]
    versions = {each.name: each.versions() for each in chosen}
    outcomes: list[Outcome] = []
    for contender in chosen:  # its two disasters beside each other: both mostly wait
        with ThreadPoolExecutor(len(DISASTERS)) as pool:
            runs = [pool.submit(strike, contender, each, arguments.watch) for each in DISASTERS]
            outcomes += [run.result() for run in runs]
        print(f"{contender.name}: {', '.join(f'{each.done} done' for each in outcomes[-2:])}")
    for disaster in DISASTERS:
        print("\n" + table(disaster, outcomes, versions))
    _write(arguments, outcomes, versions)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs.disaster", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="contenders with this in their name"
    )
    parser.add_argument("--watch", type=float, default=WATCH, metavar="SECONDS")
    parser.add_argument("--json", type=Path, default=Path("build/disaster.json"), metavar="FILE")
    return parser.parse_args()


def _write(
    arguments: argparse.Namespace, outcomes: Sequence[Outcome], versions: dict[str, dict]
) -> None:
    with RedisServer(private=True) as server:
        redis = server.version
    page = {
        "jobs": JOBS,
        "concurrency": CONCURRENCY,
        "struck_at": STRUCK_AT,
        "watch": arguments.watch,
        "redis": redis,
        "redis_config": AOF,
        "python": platform.python_version(),
        "versions": versions,
        "outcomes": [asdict(each) for each in outcomes],
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(page, indent=1), encoding="utf-8")
    print(f"\nwrote {arguments.json}")


if __name__ == "__main__":
    main()
