# Two commands matter: `make demo` and `make test`. Everything is installed into .venv here, nothing elsewhere.
#   PYTHON=/path/to/python3.11   interpreter for the environment (3.10 to 3.13; found by itself otherwise)
#   VENV=.venv-3.12              another folder for it, for a second Python beside the first
#   DEMO_ARGS, TEST_ARGS, BENCH_ARGS   extra words for come-nav demo, pytest and the benchmarks

SHELL     := bash
VENV      := .venv
BIN       := $(VENV)/bin
STAMP     := $(VENV)/.installed
CODE      := come_nav launch test benchmarks docs/make setup.py .ci/write_constraints.py
TEST_JOBS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 8 ? cores : 8)))

.DEFAULT_GOAL := help
.PHONY: help install demo test lint fast pytest bench constraints clean

help:  ## print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(STAMP)  ## make .venv with come_nav and all it needs (the other targets do this first)

$(STAMP): setup.py constraints.txt .ci/install
	@PYTHON="$(PYTHON)" VENV="$(VENV)" ./.ci/install

demo: $(STAMP)  ## record, imagine, plan and evaluate in a built-in world; writes an HTML report
	@$(BIN)/come-nav demo $(DEMO_ARGS)

test: lint pytest  ## lint, types and all tests

lint: $(STAMP)  ## ruff (rules and format) and mypy
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy come_nav

fast: $(STAMP)  ## types and the tests that start no ROS node and take seconds: what CI runs on every other Python
	$(BIN)/mypy come_nav
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadgroup -m "not live and not slow" $(TEST_ARGS)

pytest: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadgroup $(TEST_ARGS)

bench: $(STAMP)  ## run every benchmark; what they print goes to benchmarks/results as well
	@mkdir -p benchmarks/results
	@set -o pipefail; for script in benchmarks/*.py; do \
		echo "== $$script"; \
		$(BIN)/python $$script $(BENCH_ARGS) | tee benchmarks/results/$$(basename $$script .py).txt || exit 1; \
	done

constraints: $(STAMP)  ## write constraints.txt from the versions in .venv
	$(BIN)/python .ci/write_constraints.py > constraints.tmp
	mv constraints.tmp constraints.txt
	touch $(STAMP)

clean:  ## remove .venv, caches and outputs
	rm -rf $(VENV) .venv-ci-* build dist install log *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs demo_out
	find come_nav test benchmarks -name __pycache__ -prune -exec rm -rf {} +
