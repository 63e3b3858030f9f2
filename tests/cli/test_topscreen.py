from __future__ import annotations

import re

import pytest

from aiopatterns.cli.topscreen import Screen
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate
from tests.cli.acting import Terminal
from tests.cli.fleets import fleet, full, queue, worker


def lines(screen: Screen, *, height: int = 40, width: int = 120) -> list[str]:
    """What stands on the terminal now."""
    screen.console.size = (width, height)
    with screen.console.capture() as taken:
        screen.console.print(screen, end="")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", taken.get())
    return [each.rstrip() for each in plain.splitlines()]


def test_a_fleet_is_shown():
    screen = Screen(Terminal())
    assert "jobs/s    -" in lines(screen)
    screen.show(full())
    text = "\n".join(lines(screen))
    for each in ("redis://here", "mail", "here:41", "10.0.0.1:80", "orders", "state open"):
        assert each in text


def test_an_empty_fleet_says_so():
    screen = Screen(Terminal())
    screen.show(fleet())
    assert "nothing is published here" in "\n".join(lines(screen))


def test_an_outage_keeps_the_figures_and_says_since_when():
    async def scene():
        screen = Screen(Terminal())
        screen.show(full())
        screen.fail("connection refused")
        await sleep(3)
        screen.fail("connection refused")
        away = "\n".join(lines(screen))
        screen.show(full())
        return away, "\n".join(lines(screen))

    away, back = simulate(scene)
    assert "nobody answers, since 3 s: connection refused" in away
    assert "mail" in away
    assert "nobody answers" not in back


def test_it_stands_still_and_goes_on():
    screen = Screen(Terminal())
    screen.show(fleet(queues=[queue("first")]))
    screen.press("p")
    screen.show(fleet(queues=[queue("second")]))
    text = "\n".join(lines(screen))
    assert "first" in text
    assert "stands still" in text
    screen.press("p")
    screen.show(fleet(queues=[queue("second")]))
    assert "second" in "\n".join(lines(screen))


def test_the_window_moves_and_never_beyond_the_ends():
    screen = Screen(Terminal())
    screen.show(fleet(workers=[worker(f"w{each}") for each in range(50)]))

    def first() -> str:
        return lines(screen, height=12)[4]

    assert len(lines(screen, height=12)) == 12
    assert first().startswith("w0")
    screen.press("up")
    assert first().startswith("w0")
    screen.press("down")
    assert first().startswith("w1")
    screen.press("page down")
    assert first().startswith("w11")
    for _ in range(9):
        screen.press("page down")
    assert lines(screen, height=12)[-1].startswith("w49")
    screen.press("page up")
    assert "w39" in lines(screen, height=12)[-1]
    screen.press("x")
    assert "w39" in lines(screen, height=12)[-1]


@pytest.mark.promise("cli-top-hostile")
def test_markup_of_others_is_text():
    screen = Screen(Terminal())
    screen.show(fleet(queues=[queue("[red]mail[/]")]))
    assert "[red]mail[/]" in "\n".join(lines(screen))


def test_the_terminal_is_given_back():
    terminal = Terminal()
    with Screen(terminal) as screen:
        screen.show(full())
    text = terminal.getvalue()
    assert text.index("\x1b[?1049h") < text.index("mail") < text.index("\x1b[?1049l")
