"""What a consumer has to say to the log in its next turn."""

from __future__ import annotations

from typing import final

from aiopatterns.backends.records import GroupTurn

__all__ = ["Talk"]


@final
class Talk:
    """Settlements that nobody has sent yet; false if there are none."""

    __slots__ = ("acks", "buried", "releases", "retries")

    def __init__(self) -> None:
        self.acks: list[str] = []
        self.releases: list[str] = []
        self.retries: dict[str, float] = {}
        self.buried: dict[str, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self.acks or self.releases or self.retries or self.buried)

    def entries(self) -> set[str]:
        """Return the ids of which something is said."""
        return {*self.acks, *self.releases, *self.retries, *self.buried}

    def turn(self, renews: list[str], limit: int, idle: float) -> GroupTurn:
        """Return the turn that says all this."""
        return GroupTurn(self.acks, self.releases, self.retries, self.buried, renews, limit, idle)
