"""pytest plugin: which seeds to run.

``--sim-seed=N`` replays one seed, ``--sim-seeds=N`` sweeps N of them, in every
:func:`~aiopatterns.testing.explore` and every test that asks for the fixture ``sim_seed``.
"""

from __future__ import annotations

import pytest

from aiopatterns.testing.explore import sweep

__all__: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("aiopatterns", "simulated event loop (aiopatterns)")
    group.addoption("--sim-seed", type=int, default=None, metavar="N", help="replay this one seed")
    group.addoption("--sim-seeds", type=int, default=None, metavar="N", help="sweep N seeds")


def asked_seeds(config: pytest.Config) -> range | None:
    """Return the seeds that the command line asks for, or None."""
    first, number = config.getoption("--sim-seed"), config.getoption("--sim-seeds")
    if first is None and number is None:
        return None
    return range(first or 0, (first or 0) + (number or 1))


def pytest_configure(config: pytest.Config) -> None:
    """Check the options and hand them to explore()."""
    sweep.set(asked_seeds(config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the fixture ``sim_seed`` its values."""
    if "sim_seed" in metafunc.fixturenames:
        metafunc.parametrize("sim_seed", asked_seeds(metafunc.config) or range(1))
