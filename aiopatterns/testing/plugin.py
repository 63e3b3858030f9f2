"""The pytest plugin of the test kit: which seeds to run.

Registered as the entry point ``aiopatterns``; it does nothing in tests that do not ask for it.

* ``--sim-seed=N`` replays one seed: every :func:`~aiopatterns.testing.explore` runs under it
  alone, and so does every test that has the fixture ``sim_seed``.
* ``--sim-seeds=N`` sweeps N seeds instead, from 0 or from ``--sim-seed`` on.
* The fixture ``sim_seed`` is the seed, for :func:`~aiopatterns.testing.simulate` or
  :class:`~aiopatterns.testing.SimLoop`; 0 without options.
* ``@pytest.mark.sim_seeds(50)`` runs such a test once for each of 50 seeds, unless the command
  line asks for others.
"""

from __future__ import annotations

import argparse
from typing import Final

import pytest

from aiopatterns.core.validate import count
from aiopatterns.testing.explore import asked_seeds

__all__ = ["pytest_addoption", "pytest_configure", "pytest_generate_tests", "pytest_unconfigure"]

MARKER = "sim_seeds(number): run the test once for each of so many seeds (fixture sim_seed)"

BEFORE: Final[pytest.StashKey[range | None]] = pytest.StashKey()
"""What was asked for when this session began: sessions may run inside each other."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--sim-seed`` and ``--sim-seeds``."""
    group = parser.getgroup("aiopatterns", "simulated event loop (aiopatterns)")
    group.addoption(
        "--sim-seed",
        type=_seed,
        default=None,
        metavar="N",
        help="run simulations under this one seed, for example to replay a failure",
    )
    group.addoption(
        "--sim-seeds",
        type=_seeds,
        default=None,
        metavar="N",
        help="run simulations under N seeds, from --sim-seed (default: 0) on",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and tell ``explore`` which seeds the command line asks for."""
    config.addinivalue_line("markers", MARKER)
    config.stash[BEFORE] = asked_seeds.get()
    asked_seeds.set(_asked(config))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take the seeds back."""
    asked_seeds.set(config.stash[BEFORE])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the fixture ``sim_seed`` its values."""
    if "sim_seed" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("sim_seeds")
    number = 1 if marker is None else count("sim_seeds", *marker.args)
    metafunc.parametrize("sim_seed", _asked(metafunc.config) or range(number))


def _asked(config: pytest.Config) -> range | None:
    """Return the seeds that the command line asks for, or None."""
    first: int | None = config.getoption("--sim-seed")
    number: int | None = config.getoption("--sim-seeds")
    if first is None and number is None:
        return None
    start = first or 0
    return range(start, start + (number or 1))


def _seed(text: str) -> int:
    return _whole_number(text, 0)


def _seeds(text: str) -> int:
    return _whole_number(text, 1)


def _whole_number(text: str, minimum: int) -> int:
    if not text.isdecimal() or int(text) < minimum:
        msg = f"must be a whole number >= {minimum}, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
