# Lossguard: every command a developer or a user needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Test processes side by side; `make test JOBS=0` runs the tests in one process.
JOBS ?= auto
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadgroup

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Lossguard needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: setup
setup: $(VENV)/.installed ## make the virtual environment and install everything into it

.PHONY: system
system: ## install the programs of the system that the tests use (Debian, as root; elsewhere says what is missing)
	@bash tests/system-packages.sh

.PHONY: demo
demo: setup ## train on real text, plant a fault, watch it caught and rolled back (under three minutes)
	@$(BIN)/python -m demo

.PHONY: serve
serve: setup ## collector on :8000 and dashboard on :8501
	@$(BIN)/python -m demo serve

.PHONY: test
test: setup system ## the whole suite (real processes and servers included)
	$(PYTEST)

.PHONY: test-fast
test-fast: setup ## what is quick enough for daily work (about a minute; SQLite alone)
	$(PYTEST) -m 'not slow and not needs'

.PHONY: test-compose
test-compose: setup ## docker-compose.yml on a real engine: a spike and its page, and services killed (root; a quarter of an hour)
	@$(BIN)/python -m tests.compose

.PHONY: check
check: setup ## ruff, mypy strict, the import contracts and a strict build of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.PHONY: fix
fix: setup ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: setup ## the documentation as a site on http://127.0.0.1:8002, rebuilt as you write
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8002

.PHONY: screenshots
screenshots: setup system ## the pictures of docs/ and the README, from a real run (minutes)
	$(BIN)/python -m demo.screenshots

.PHONY: bench
bench: setup ## measure the figures of docs/benchmarks.md
	$(BIN)/python -m benchmarks

.PHONY: bench-detection
bench-detection: setup ## judge the detection on labelled curves and synthetic suites (CURVES=folder with labels.json)
	$(BIN)/python -m benchmarks.detection --compare $(if $(CURVES),--curves $(CURVES))

.PHONY: audit
audit: setup ## look up every installed package in the published advisories (needs the network; exit 3 without it)
	@$(BIN)/python -m tests.audit

.PHONY: clean
clean: ## delete the virtual environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist site *.egg-info
