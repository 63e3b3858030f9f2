"""Watchers: called in order, until they leave, whatever one of them does."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.resilience.watchers import Watchers


def test_all_are_called_in_order_until_they_leave():
    watchers, seen = Watchers[[]]("the object"), []
    watchers.call()
    first = watchers.add(lambda: seen.append(1))
    second = watchers.add(lambda: seen.append(2))
    watchers.call()
    first.close()
    first.close()
    watchers.call()
    second.close()
    watchers.call()
    assert seen == [1, 2, 2]


def test_one_that_was_added_twice_leaves_once():
    watchers, seen = Watchers[[]]("the object"), []

    def watcher() -> None:
        seen.append(1)

    first, _ = watchers.add(watcher), watchers.add(watcher)
    watchers.call()
    first.close()
    watchers.call()
    assert seen == [1, 1, 1]


def test_one_that_leaves_while_it_is_called():
    watchers, seen = Watchers[[]]("the object"), []

    def watcher() -> None:
        seen.append(1)
        subscription.close()

    subscription = watchers.add(watcher)
    watchers.add(lambda: seen.append(2))
    watchers.call()
    watchers.call()
    assert seen == [1, 2, 2]


def test_one_that_fails_is_logged_and_breaks_nothing(caplog):
    watchers, seen = Watchers[[]]("the object"), []

    def broken() -> None:
        raise ValueError("mine")

    watchers.add(broken)
    watchers.add(lambda: seen.append(1))
    watchers.call()
    assert seen == [1]
    assert "a watcher of the object failed" in caplog.text
    assert "ValueError: mine" in caplog.text


def test_only_plain_functions_watch():
    async def watcher() -> None: ...

    wrong: Any = 7
    with pytest.raises(TypeError, match="watcher must be a plain function"):
        Watchers[[]]("the object").add(watcher)
    with pytest.raises(TypeError, match="watcher must be a function"):
        Watchers[[]]("the object").add(wrong)


def test_watchers_may_be_told_what_has_changed():
    watchers, seen = Watchers[[str, int]]("the object"), []
    watchers.add(lambda name, at: seen.append((name, at)))
    watchers.call("a", 1)
    watchers.call("b", 2)
    assert seen == [("a", 1), ("b", 2)]
