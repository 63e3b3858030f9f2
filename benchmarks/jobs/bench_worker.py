"""Jobs: what one no-op job costs a worker process, and what it costs Redis.

One worker process, 100 jobs at once, every result stored and checked; retries, leases and timeouts
as each library has them by default. The middle of the run is measured, from the start of the 101st
job to that of the last: as many claims as acknowledgements, no start-up. Each contender is a
program in its own environment; ``peers/contract.py`` says what it does. A round trip is a read of
a client's socket by the server (``total_reads_processed``), Redis CPU its user and system time.

Goals: a fifth of the time of each tuned peer, a tenth of streaq's, 12,000 jobs a second; 0.05 round
trips and 6 us of Redis a job.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.jobs.contenders import LIMIT, Contender, ours_and_peers
from benchmarks.jobs.field import Runs, bench_of_jobs

OURS, THEIRS = 20_000, 2_000  # jobs a run: about a second each
ROUNDS = 3
FASTER, FASTER_THAN_STREAQ = 1 / 5, 1 / 10
LEAST_A_SECOND = 12_000

bench = bench_of_jobs("jobs/worker", rounds=ROUNDS)


def drain(contender: Contender, url: str) -> Mapping[str, float]:
    """Fill a queue and empty it."""
    count = THEIRS if contender.role == "peer" else OURS
    figures = contender.call(url, "drain", count)
    assert figures["stored"] == count
    return figures


peers = [each for each in ours_and_peers() if each.role == "peer"]
contenders = [*ours_and_peers(), LIMIT]
runs = Runs(contenders, drain)

time = bench.case(
    "no-op job, one worker process, 100 at once, result stored",
    clock="wall",
    unit="us/job",
    warm=False,
)
runs.add(time, "us")
for peer in peers:
    time.at_most(FASTER_THAN_STREAQ if peer.name == "streaq" else FASTER, of=peer.name)
time.under(1e6 / LEAST_A_SECOND)

trips = bench.case(
    "round trips of that job, worker side", clock="count", unit="trips/job", warm=False
)
runs.add(trips, "reads")
trips.under(0.05)

redis = bench.case("Redis for that job", clock="server cpu", unit="us/job", warm=False)
runs.add(redis, "server_us")
redis.under(6.0)

if __name__ == "__main__":
    bench.main()
