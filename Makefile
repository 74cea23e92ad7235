# Targets with a `##` comment are listed by `make help`.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := core ingest labels research backtest live tests benchmarks run_pipeline.py
.DEFAULT_GOAL := help
.PHONY: help run test lint types fast slow bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 10

run: .venv/runtime  ## set up, then the whole pipeline on the simulated exchange
	$(BIN)/python run_pipeline.py

test: lint types fast slow  ## everything CI checks: lint, types, layers, tests

lint: .venv/dev  ## ruff (format and lint) and the import layers
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports

types: .venv/dev  ## mypy --strict
	$(BIN)/mypy

fast: .venv/dev  ## unit, property and loopback tests
	$(BIN)/python -m pytest -m "not slow" -n 2

slow: .venv/dev  ## whole-pipeline runs
	$(BIN)/python -m pytest -m slow

bench: .venv/dev  ## every benchmark, one after the other
	@for script in benchmarks/bench_*.py; do echo "### $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove what was generated: data, logs, caches (not .venv)
	rm -rf data logs .kernels .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/runtime: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev: .venv/runtime requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
