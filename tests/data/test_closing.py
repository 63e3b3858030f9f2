from __future__ import annotations

import pytest

from aiopatterns.data.closing import Closing


class Drawer(Closing):
    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


async def test_leaving_the_block_closes_it_also_by_an_error_and_it_may_be_entered_again():
    drawer = Drawer()
    async with drawer as entered:
        assert entered is drawer
        assert drawer.closed == 0
    with pytest.raises(KeyError):
        async with drawer:
            raise KeyError
    assert drawer.closed == 2
