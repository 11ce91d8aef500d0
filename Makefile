# Everything runs from .venv, which is made and kept fresh by the stamp files in it. Paths are
# relative, because make can't handle absolute ones that contain spaces; and programs are started
# with `python -m`, because the scripts in .venv/bin break when the directory is moved.

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
PY := .venv/bin/python
PIP := PIP_USER=0 $(PY) -m pip --quiet --disable-pip-version-check --no-input install --no-compile --use-pep517
# Where nothing is to be written beside the sources, each of many processes would compile them anew.
export PYTHONPYCACHEPREFIX = $(CURDIR)/.venv/pycache
export PYTHONDONTWRITEBYTECODE =
WORKERS ?= 3# of the tests: one more than cores, since many of them wait

.DEFAULT_GOAL := help
.PHONY: help run demo test lint format bench stress clean
.DELETE_ON_ERROR:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

run: .venv/run.stamp ## Start Metronome here: database, API and executor
	@exec $(PY) -m app.cli run --try "make demo"

demo: .venv/run.stamp ## Cancel a run of the started Metronome, and watch its trace
	@exec $(PY) -m app.cli demo

test: .venv/test.stamp ## Run the tests; ARGS="-k cancel" passes options to pytest
	@exec $(PY) -m pytest -n $(WORKERS) $(ARGS)

lint: .venv/lint.stamp ## Check style, types and the direction of imports
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -c "from importlinter.cli import lint_imports_command as run; run()"

format: .venv/lint.stamp ## Format the code, and fix what can be fixed
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: .venv/run.stamp .venv-bench/run.stamp ## Measure everything, beside others: half an hour; ARGS=--quick
	@exec $(PY) -m benchmarks $(ARGS)

stress: .venv/run.stamp ## Try for five minutes to break the promises; ARGS="--seconds 60"
	@exec $(PY) -m benchmarks.stress $(ARGS)

clean: ## Remove .venv and the caches; var/, the data, stays
	@rm -rf .venv .venv-bench build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@rm -rf .import_linter_cache
	@find . -name __pycache__ -not -path './var/*' -prune -exec rm -rf {} +

.venv/bin/python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Metronome needs Python 3.11 or newer; python3 is $$(python3 --version 2>&1)" >&2; exit 1; }
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "python3 can't make virtual environments here. On Debian and Ubuntu:" >&2; \
	  echo "  apt install python3-venv" >&2; exit 1; }
	@rm -rf .venv
	@echo "Making .venv"
	@python3 -m venv .venv || { rm -rf .venv; exit 1; }

.venv/run.stamp: setup.cfg setup.py | .venv/bin/python
	@echo "Installing what Metronome needs"
	@$(PIP) --editable .
	@touch $@

# The peers of the comparison have an environment of their own.
.venv-bench/run.stamp: setup.cfg benchmarks/peers/install.py | .venv/run.stamp
	@echo "Installing what Metronome is compared with"
	@$(PY) -m benchmarks.peers.install .venv-bench
	@touch $@

.venv/test.stamp: .venv/run.stamp
	@echo "Installing what the tests need"
	@$(PIP) --editable '.[test]'
	@touch $@

.venv/lint.stamp: .venv/run.stamp
	@echo "Installing what the checks need"
	@$(PIP) --editable '.[test,lint]'
	@touch $@
