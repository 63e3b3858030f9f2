"""What one peer knows of another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import final

__all__ = ["Member", "MemberState"]


class MemberState(Enum):
    """How a peer stands, as far as this node knows.

    ::

        ALIVE --- a probe fails ---> SUSPECT --- nobody contradicts in time ---> DEAD
          ^  ^                          |                                          |
          |  `---- it contradicts ------'        it is back, or was never away     |
          `------------------------------------------------------------------------'
        ALIVE or SUSPECT --- it says goodbye ---> LEFT --- it joins again ---> ALIVE
    """

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


@final
@dataclass(frozen=True, slots=True)
class Member:
    """A peer, as one node sees it at one instant.

    Attributes:
        name: Its name, one in the cluster.
        address: Where its transport is reached.
        state: How it stands.
        incarnation: Its own version of itself; only the peer itself raises it.
        since: Since when it stands so, in monotonic seconds of this node.
    """

    name: str
    address: str
    state: MemberState
    incarnation: int
    since: float

    @property
    def living(self) -> bool:
        """Whether it is alive or suspect: it is still probed, told and sent to."""
        return self.state is MemberState.ALIVE or self.state is MemberState.SUSPECT
