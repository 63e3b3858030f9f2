"""Jobs: putting them on the queue, in a batch and one after the other.

A batch is enqueued by the fastest means a library documents: ``enqueue_many``, ``add_many``, or
calls gathered over a pool of connections where there is nothing better. One producer process on
uvloop; the first job, which connects and loads scripts, is not counted.

Goal: a quarter of the time of each peer in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.jobs.contenders import LIMIT, Contender, ours_and_peers
from benchmarks.jobs.field import Runs, bench_of_jobs

BATCH, OURS_BATCH, SINGLE = 3_001, 20_001, 1_001  # the first one warms up
ROUNDS = 3

bench = bench_of_jobs("jobs/enqueue", rounds=ROUNDS)


def batch(contender: Contender, url: str) -> Mapping[str, float]:
    """All at once."""
    return contender.call(url, "enqueue", "noop", BATCH if contender.role == "peer" else OURS_BATCH)


def single(contender: Contender, url: str) -> Mapping[str, float]:
    """Each when the one before it is on the queue."""
    return contender.call(url, "enqueue", "noop", SINGLE, "--one-by-one")


peers = [each for each in ours_and_peers() if each.role == "peer"]
contenders = [*ours_and_peers(), LIMIT]

many = bench.case("enqueue, batch", clock="wall", unit="us/job", warm=False)
in_batches = Runs(contenders, batch)
in_batches.add(many, "us")
for peer in peers:
    many.at_most(0.25, of=peer.name)

many_trips = bench.case("round trips, batch", clock="count", unit="trips/job", warm=False)
in_batches.add(many_trips, "reads")

many_redis = bench.case("Redis, batch", clock="server cpu", unit="us/job", warm=False)
in_batches.add(many_redis, "server_us")

one = bench.case("enqueue, one by one", clock="wall", unit="us/job", warm=False)
Runs(contenders, single).add(one, "us")

if __name__ == "__main__":
    bench.main()
