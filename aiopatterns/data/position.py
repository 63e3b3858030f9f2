"""Positions: how far a database, or its copy, has come in the one history of writes.

PostgreSQL numbers the bytes of its log of writes. A primary that has written up to ``16/B374D848``
and a standby that has replayed up to there show the same data, so a comparison of two numbers says
whether a copy has seen a write::

    primary   ----------------------------*  written:  0/3000148
    standby   -------------------*           replayed: 0/3000060   has not seen the write yet

A position is text in a cookie or a header, and a number while it is compared.

Guarantees: ``Position.parse(str(position)) == position``, and the order is that of the log.

Not guaranteed: positions of databases with different histories compare, but mean nothing. After a
failover that lost writes, the new primary uses the numbers of the lost ones again.

Source: PostgreSQL documentation, "pg_lsn Type".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, final

from aiopatterns.core.validate import count, text

__all__ = ["Position"]

_TEXT: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)
_LOW_BITS: Final = 32
_LOW: Final = (1 << _LOW_BITS) - 1
_END: Final = 1 << 64


@final
@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the history of a database.

    Attributes:
        value: Its number, from 0 to 2**64 - 1; what is later is greater.

    Raises:
        TypeError: ``value`` is no whole number.
        ValueError: It is out of range.
    """

    value: int = 0

    def __post_init__(self) -> None:
        if count("value", self.value, minimum=0) >= _END:
            msg = f"value must be a whole number < 2**64, not {self.value!r}"
            raise ValueError(msg)

    @classmethod
    def parse(cls, token: str) -> Position:
        """Return the position that ``token`` names.

        Args:
            token: As PostgreSQL writes it and ``str`` returns it: ``"16/B374D848"``.

        Raises:
            TypeError: It is no text.
            ValueError: It is no position.
        """
        found = _TEXT.fullmatch(text("token", token))
        if found is None:
            msg = f"token must be a position such as '16/B374D848', not {token!r}"
            raise ValueError(msg)
        return cls((int(found[1], 16) << _LOW_BITS) | int(found[2], 16))

    def __str__(self) -> str:
        """Return it as PostgreSQL writes it."""
        return f"{self.value >> _LOW_BITS:X}/{self.value & _LOW:X}"
