"""Unique keys: no second job for what is asked for already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

from aiopatterns.core.validate import choice, positive, text

__all__ = ["Unique", "UniqueMode"]

UniqueMode: TypeAlias = Literal["drop", "throttle", "debounce", "keep_last"]

_MODES: Final = ("drop", "throttle", "debounce", "keep_last")
_WINDOWED: Final = ("throttle", "debounce")


@final
@dataclass(frozen=True, slots=True)
class Unique:
    """One job at a time for a key; who enqueues another one gets the handle of the first.

    ==========  ==============================================================================
    mode        a second job of the key ...
    ==========  ==============================================================================
    drop        is not made until the first has ended
    throttle    is not made until ``window`` seconds after the first was enqueued, and until
                it has ended
    debounce    replaces the arguments of the first while that has not started, and its delay
                of ``window`` seconds starts anew
    keep_last   replaces the arguments of the first while that has not started; once it runs,
                one more is kept and follows it
    ==========  ==============================================================================

    The key is free again when its job is dead or cancelled; a throttle window stays.

    Args:
        key: A template over the arguments, such as ``"user:{user_id}"``. Keys are those of one
            job's name.
        mode: See the table.
        window: Seconds, above 0; needed for throttle and debounce, refused for the others.

    Raises:
        ValueError: An unknown mode, or a window that is missing or not wanted.
    """

    key: str
    mode: UniqueMode = "drop"
    window: float | None = None

    def __post_init__(self) -> None:
        text("key", self.key)
        choice("mode", self.mode, _MODES)
        if self.mode in _WINDOWED:
            if self.window is None:
                msg = f"window must be given for mode={self.mode!r}, in seconds"
                raise ValueError(msg)
            positive("window", self.window)
        elif self.window is not None:
            msg = f"window must be None for mode={self.mode!r}, not {self.window!r}"
            raise ValueError(msg)
