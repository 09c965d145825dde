# Lossguard: the commands for users and developers. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.DEFAULT_GOAL := help
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
# Test processes side by side, one more than cores: tests also wait. `make test JOBS=0` runs the tests in one process.
JOBS ?= $(shell echo $$(($(CORES) + 1)))
# Bytecode is written whatever the environment says: without it every process compiles all tests and plugins anew.
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Lossguard needs Python 3.11 or newer; choose one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: setup
setup: $(VENV)/.installed ## create the virtual environment and install everything into it

.PHONY: system
system: ## install the system programs that the tests use (Debian, as root; elsewhere print what is missing)
	@bash tests/system-packages.sh

.PHONY: demo
demo: setup ## train on real text with an injected fault, and watch the rollback (under three minutes)
	@$(BIN)/python -m demo

.PHONY: serve
serve: setup ## start the collector on :8000 and the dashboard on :8501
	@LOSSGUARD_DIR="$${LOSSGUARD_DIR:-.lossguard}" $(BIN)/python -m lossguard_server

.PHONY: test
test: setup system ## run the tests that prove every change, including those with real processes and servers
	$(PYTEST) -m 'not system'

.PHONY: test-system
test-system: setup system ## run the other tests: servers, networks, clusters and frameworks in depth (every night)
	$(PYTEST) -m system

.PHONY: test-fast
test-fast: JOBS = $(CORES)
test-fast: setup ## run the quick tests, without a store (about a minute)
	$(PYTEST) -m 'not slow and not needs and not system and not store'

.PHONY: test-compose
test-compose: setup ## test docker-compose.yml on a real engine: a spike and its alert, killed services (root; 15 minutes)
	@$(BIN)/python -m tests.compose

.PHONY: test-frameworks
test-frameworks: ## test the oldest and the newest releases of accelerate, transformers and lightning (ROWS=..; some GB of packages)
	$(PYTHON) -m tests.frameworks $(ROWS)

.PHONY: test-gpu
test-gpu: ## run on one CUDA device what has not run on a GPU yet (figures as JSON; some GB of packages; exit 3 without a device)
	@$(PYTHON) -m tests.gpu $(ARGS)

.PHONY: check
check: setup ## run ruff, mypy (strict), the import contracts and a strict build of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.PHONY: fix
fix: setup ## format the code and apply ruff's fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: setup ## serve the documentation on http://127.0.0.1:8002, rebuilt on every change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8002

.PHONY: dist
dist: setup ## build the wheels and sdists of lossguard and lossguard-server into dist/
	@rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m build --no-isolation --outdir dist deploy/server

.PHONY: screenshots
screenshots: setup system ## regenerate the pictures of docs/ and the README from a real run (minutes)
	$(BIN)/python -m demo.screenshots

.PHONY: bench
bench: setup ## run the measurements of docs/benchmarks.md
	$(BIN)/python -m benchmarks

.PHONY: bench-detection
bench-detection: setup ## evaluate the detection on labelled curves and synthetic suites (CURVES=folder with labels.json)
	$(BIN)/python -m benchmarks.detection --compare $(if $(CURVES),--curves $(CURVES))

.PHONY: bench-growth
bench-growth: setup ## measure how costs grow with steps, runs and incidents, and what live runs need (under ten minutes)
	@$(BIN)/python -m benchmarks.growth $(ARGS)

.PHONY: lock
lock: ## renew the hashes of deploy/requirements after a change of deploy/constraints.txt (needs the network)
	@PYTHON=$(PYTHON) deploy/lock.sh

.PHONY: digests
digests: ## pin the images of docker-compose.yml, and the base of our own, by digest in .env (needs Docker and the network)
	@deploy/digests.sh

.PHONY: audit
audit: setup ## check every installed package against published advisories (needs the network; exit 3 without it)
	@$(BIN)/python -m tests.audit

.PHONY: clean
clean: ## delete the virtual environment and all caches
	rm -rf $(VENV) .frameworks .pytest_cache .mypy_cache .ruff_cache .hypothesis dist site *.egg-info
