"""Labels of bounded number: a metric with too many of them costs more than what it measures."""

from __future__ import annotations

from typing import Final, final

__all__ = ["MAX_NAMES", "OTHER", "Names"]

#: Values of one label that are told apart.
MAX_NAMES: Final = 200
#: What all others count as.
OTHER: Final = "other"


@final
class Names:
    """The values that the labels of one subscription have had."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def bounded(self, label: str, value: str) -> str:
        """Return ``value``, or :data:`OTHER` if it is one of too many.

        Args:
            label: The label.
            value: What it would be.
        """
        known = self._known.setdefault(label, set())
        if value not in known:
            if len(known) >= MAX_NAMES:
                return OTHER
            known.add(value)
        return value
