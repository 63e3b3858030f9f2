from __future__ import annotations

from aiopatterns.jobs import JobQueue
from aiopatterns.jobs.shop import Shop


def test_a_shop_knows_what_a_worker_needs_of_a_queue():
    jobs = JobQueue("q", lease=7.0, partitions=3)

    @jobs.job(name="later")
    async def later() -> None: ...

    shop = Shop(jobs, {"db": 1})
    assert (shop.name, shop.lease, shop.state, len(shop.stores)) == ("q", 7.0, {"db": 1}, 3)
    assert shop.jobs["later"] is later
    assert shop.ledger.queue == "q"
