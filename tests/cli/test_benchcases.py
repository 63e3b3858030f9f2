from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from aiopatterns.cli.benchcases import LOCAL


@pytest.mark.parametrize("case", LOCAL, ids=lambda case: case.name)
async def test_a_case_does_what_it_is_told(case):
    async with AsyncExitStack() as stack:
        run = await case.open(stack)
        for count in (1, 2, 150):
            await run(count)


def test_cases_have_names_of_their_own():
    assert len({(each.group, each.name) for each in LOCAL}) == len(LOCAL)
