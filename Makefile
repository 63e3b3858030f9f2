# `make` alone prints this list. Each environment is made on first use and again when pyproject.toml changes.
.DEFAULT_GOAL := help
.PHONY: help setup run test check ci format format-check lint types types-versions floors bench disaster stress docs picture wheel-test interpreters newcomer promises exports changelog clean

RUN := .venv-run
TEST := .venv-test
DEV := .venv

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(RUN)/.ready: pyproject.toml
	@.ci/venv $(RUN) -e '.[cli,uvloop]'

$(TEST)/.ready: pyproject.toml
	@.ci/venv $(TEST) -e '.[cli,uvloop]' --group test

$(DEV)/.ready: pyproject.toml
	@.ci/venv $(DEV) -e '.[cli,uvloop]' --group dev

setup: $(DEV)/.ready ## make the environment for development in .venv

run: $(RUN)/.ready ## run the main job on Python's own standard library; ARGS="PATH --json ..."
	@$(RUN)/bin/aiopatterns run $(ARGS)

test: $(TEST)/.ready ## run all tests on three event loops, with branch coverage; ARGS="-k word"
	@.ci/servers
	@PYTHON=$(TEST)/bin/python .ci/test $(ARGS)

check: $(DEV)/.ready ## the quick look before a commit: format, lint, types, floors, tests on virtual time
	@$(MAKE) --no-print-directory format-check lint types floors
	@$(DEV)/bin/python -m pytest -q -n 2 --suite-loops sim -m "not real and not stress"

ci: $(DEV)/.ready ## all that must pass before a change lands
	@$(MAKE) --no-print-directory format-check lint types floors docs
	@$(MAKE) --no-print-directory run ARGS="--report build/report.html"
	@$(MAKE) --no-print-directory test

format: $(DEV)/.ready ## format the code
	@$(DEV)/bin/ruff format --quiet .
	@$(DEV)/bin/ruff check --quiet --fix .

format-check: $(DEV)/.ready
	@$(DEV)/bin/ruff format --check --quiet . || { echo "run 'make format'" >&2; exit 1; }

lint: $(DEV)/.ready ## ruff with every rule, and the metadata
	@$(DEV)/bin/ruff check --quiet .
	@$(DEV)/bin/validate-pyproject pyproject.toml >/dev/null

types: $(DEV)/.ready ## mypy and pyright, strict, and 100 % of the public names typed
	@$(DEV)/bin/mypy
	@$(DEV)/bin/pyright --warnings
	@.ci/typed $(DEV)/bin

types-versions: $(DEV)/.ready ## the same checkers for every Python that is supported
	@for each in 3.11 3.12 3.13 3.14; do \
		echo "Python $$each"; \
		$(DEV)/bin/mypy --python-version $$each && $(DEV)/bin/pyright --warnings --pythonversion $$each || exit 1; \
	done

floors: $(DEV)/.ready ## which room may import which
	@$(DEV)/bin/lint-imports --no-logo | tail -n 12

bench: $(DEV)/.ready ## measure ours beside the peers and write docs/benchmarks.md
	@$(DEV)/bin/python -m benchmarks $(ARGS)

disaster: $(DEV)/.ready ## kill the worker, kill Redis: ours beside five job queues; ARGS="--only NAME"
	@$(DEV)/bin/python -m benchmarks.jobs.disaster $(ARGS)

stress: $(TEST)/.ready ## the long form of the promises: more seeds, longer runs
	@.ci/servers
	@$(TEST)/bin/python -m pytest -q -n 2 -m stress --timeout 1800 $(ARGS)
	@$(TEST)/bin/python -m pytest -q -n 2 -m "not real" -k "seed or schedule" --suite-loops sim --sim-seeds 2000 --timeout 1800 $(ARGS)

docs: $(DEV)/.ready ## build the documentation into site/, and see that its reference is complete
	@told=$$(NO_MKDOCS_2_WARNING=1 $(DEV)/bin/mkdocs build --strict 2>&1) || \
		{ echo "$$told" | grep -v '^INFO' >&2; exit 1; } # --quiet would hide warnings from --strict
	@$(DEV)/bin/python .ci/reference

picture: $(DEV)/.ready ## play the demo's chaos act and make the picture of it that the README shows
	@$(DEV)/bin/python docs/demo_picture.py $(ARGS)

wheel-test: $(DEV)/.ready ## build the wheel and test it, not the tree
	@.ci/servers
	@PYTHON=$(DEV)/bin/python .ci/wheel $(ARGS)

interpreters: ## the fast suite on every supported Python that is found here, and without uvloop
	@.ci/interpreters $(ARGS)

newcomer: ## time a newcomer's path: clone, first result, first job of one's own, dashboard
	@.ci/newcomer

promises: $(TEST)/.ready ## write docs/promises.md from the tests
	@$(TEST)/bin/python -m pytest -q --collect-only --write-promises >/dev/null && echo "wrote docs/promises.md"

exports: $(TEST)/.ready ## write tests/exports.txt, the front door's page and the table of events, if a change is meant
	@$(TEST)/bin/python -m tests.test_exports && echo "wrote tests/exports.txt"
	@$(TEST)/bin/python -m tests.test_site && echo "wrote docs/reference/front-door.md"
	@$(TEST)/bin/python -m tests.test_events && echo "wrote the table of docs/guides/events.md"

changelog: $(DEV)/.ready ## show what the next release's changelog says
	@$(DEV)/bin/towncrier build --draft --version next

clean: ## delete environments, caches and what runs have written
	@rm -rf .venv .venv-run .venv-test .venv-wheel build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* .reports.log
