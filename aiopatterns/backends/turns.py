"""What a group's consumer may say: a :class:`GroupTurn`, checked once for both implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from aiopatterns.backends.names import check_data, check_name, check_names
from aiopatterns.core.validate import count, instance, non_negative, positive

if TYPE_CHECKING:
    from aiopatterns.backends.records import GroupTurn

__all__ = ["DEDUP", "MAX_DEAD", "Turn", "checked"]

#: Dead letters that a group keeps at most; the oldest make room.
MAX_DEAD: Final = 10_000
#: Seconds for which the token of an append is known.
DEDUP: Final = 600.0


class Turn(NamedTuple):
    """A checked turn: every id once in each list, times in whole microseconds."""

    acks: list[str]
    releases: list[str]
    retries: dict[str, int]
    buried: dict[str, bytes]
    renews: list[str]
    limit: int
    idle: int
    delete: bool


def checked(turn: GroupTurn) -> Turn:
    """Return ``turn`` if all of it makes sense.

    Raises:
        TypeError: Something is of a wrong type.
        ValueError: Something is out of range; the message names it.
    """
    for parameter in ("acks", "releases", "renews"):
        check_names(parameter, getattr(turn, parameter))
    return Turn(
        acks=list(dict.fromkeys(turn.acks)),
        releases=list(dict.fromkeys(turn.releases)),
        retries={
            check_name("retries", each): round(non_negative("retries", delay) * 1e6)
            for each, delay in (turn.retries or {}).items()
        },
        buried={
            check_name("buried", each): check_data("buried", reason)
            for each, reason in (turn.buried or {}).items()
        },
        renews=list(dict.fromkeys(turn.renews)),
        limit=count("limit", turn.limit, minimum=0),
        idle=max(1, round(positive("idle", turn.idle) * 1e6)),
        delete=instance("delete", turn.delete, bool, "a bool"),
    )
