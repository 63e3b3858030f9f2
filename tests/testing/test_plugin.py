from __future__ import annotations

import pytest

from aiopatterns.testing.explore import asked_seeds

pytest_plugins = ["pytester"]

SWEEP = """
    import asyncio
    import pytest
    from aiopatterns.testing import explore, simulate

    ran = []

    async def scenario():
        ran.append(asyncio.get_running_loop().seed)

    def test_explore():
        explore(scenario, range(3))
        print("explored", ran)

    def test_seed(sim_seed):
        simulate(scenario, sim_seed)

    @pytest.mark.sim_seeds(4)
    def test_marked(sim_seed):
        simulate(scenario, sim_seed)
        print("marked", sim_seed)
"""


@pytest.fixture
def run(pytester):
    def run(*options, source=SWEEP):
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess(
            "-s", "-p", "no:randomly", "-p", "no:asyncio", "--strict-markers", *options
        )

    return run


def test_without_options_the_code_names_the_seeds(run):
    result = run("-v")
    result.assert_outcomes(passed=1 + 1 + 4)
    result.stdout.fnmatch_lines(["*explored [[]0, 1, 2[]]*", "*test_seed[[]0[]]*"])
    result.stdout.fnmatch_lines([f"*marked {seed}*" for seed in range(4)])


@pytest.mark.promise("testing-replay")
def test_one_seed_is_replayed_everywhere(run):
    before = asked_seeds.get()
    result = run("--sim-seed=7", "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*explored [[]7[]]*", "*test_seed[[]7[]]*", "*marked 7*"])
    assert asked_seeds.get() == before


def test_many_seeds_are_swept_everywhere(run):
    result = run("--sim-seeds=5")
    result.assert_outcomes(passed=1 + 5 + 5)
    result.stdout.fnmatch_lines(["*explored [[]0, 1, 2, 3, 4[]]*"])
    result = run("--sim-seed=10", "--sim-seeds=2")
    result.assert_outcomes(passed=1 + 2 + 2)
    result.stdout.fnmatch_lines(["*explored [[]10, 11[]]*"])


def test_a_failing_seed_is_named_and_replays(run):
    source = """
        import asyncio
        from aiopatterns.testing import explore

        async def scenario():
            assert asyncio.get_running_loop().seed != 2

        def test_fails():
            explore(scenario, range(10))
    """
    result = run(source=source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*under seed 2 (trace *); replay it with *--sim-seed=2*"])
    run("--sim-seed=2", source=source).assert_outcomes(failed=1)
    run("--sim-seed=3", source=source).assert_outcomes(passed=1)


def test_a_project_that_does_not_use_it_sees_nothing_of_it(run):
    result = run("-v", source="def test_plain(): pass")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*seed*")


def test_the_options_and_the_marker_are_in_the_help(run):
    text = run("--help").stdout.str()
    assert "--sim-seed=N" in text
    assert "--sim-seeds=N" in text
    run("--markers").stdout.fnmatch_lines(["@pytest.mark.sim_seeds(number): *"])


@pytest.mark.promise("testing-bad-input")
@pytest.mark.parametrize("option", ["--sim-seed=-1", "--sim-seeds=0", "--sim-seeds=x"])
def test_bad_options_are_refused_in_one_line(run, option):
    result = run(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*argument {option.partition('=')[0]}: must be a whole number*"])


@pytest.mark.promise("testing-bad-input")
def test_a_bad_marker_is_refused(run):
    source = """
        import pytest

        @pytest.mark.sim_seeds(0)
        def test_marked(sim_seed): pass
    """
    run(source=source).stdout.fnmatch_lines(["*sim_seeds must be a whole number >= 1, not 0*"])
