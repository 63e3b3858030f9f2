"""Bulkhead: one slow dependency may hold five calls, queue five more, and no others."""

from __future__ import annotations

import asyncio

from aiopatterns import Bulkhead, BulkheadFullError

reports = Bulkhead(5, max_queue=5)


@reports
async def build(number: int) -> int:
    await asyncio.sleep(0.01)
    return number


async def main() -> None:
    answers = await asyncio.gather(*map(build, range(20)), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, BulkheadFullError)]
    assert (len(answers) - len(refused), len(refused)) == (10, 10)
    assert reports.statistics().in_flight == 0
    print("ten reports built, five at a time; ten refused at once")


if __name__ == "__main__":
    asyncio.run(main())
