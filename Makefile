# Kappa: `make help` lists what there is. The first target that needs Python packages makes .venv by itself.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
COMPONENTS := api operator gateway runtime/python local
PACKAGES := kappa_api kappa_operator kappa_gateway kappa_runtime kappa_local
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1

##@ First steps
help: ## Show this text
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-zA-Z0-9_-]+:.*## / {printf "  \033[36mmake %-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: venv ## Deploy, call and scale functions on the embedded cluster, step by step (no Docker, no root)
	@$(PY) -m kappa_local demo

up: venv ## Start Kappa on the embedded cluster and leave it running; prints the URLs
	@$(PY) -m kappa_local up

down: ## Stop what `make up` started
	@test ! -x $(PY) || $(PY) -m kappa_local down

##@ Checks
test: unit integration ## All tests that need no cluster

unit: venv ## Fast tests: no network, virtual time
	@$(PY) -m pytest tests/unit tests/cluster tests/fuzz -n 2

integration: venv ## Tests against the embedded cluster
	@$(PY) -m pytest tests/integration -m "not real" -n 3 --dist loadfile

lint: venv ## ruff, import rules
	@ruff check .
	@ruff format --check .
	@lint-imports --no-cache

type: venv ## mypy --strict
	@mypy $(addprefix -p ,$(PACKAGES))
	@mypy tests/cluster tests/support

format: venv ## Rewrite the code in the project's style
	@ruff check --fix-only -q . || true
	@ruff format -q .

SECONDS := 60
fuzz: venv ## Hostile input for every parser, at random and guided by coverage, and random order for the state machines, for SECONDS=60
	@$(PY) -c 'import atheris' 2>/dev/null || { echo "Looking for atheris (35 MB, once) ..."; \
	  $(PY) -m pip install -qq --disable-pip-version-check --retries 1 --no-deps --require-hashes -r requirements/fuzz.txt >/dev/null 2>&1 || true; }
	@PYTHONPATH=tests/support:tests/fuzz $(PY) tests/fuzz/run.py --seconds $(SECONDS) $(ARGS)

bench: venv ## Speed and memory of gateway and runtime, as ratios against baselines
	@$(PY) tests/bench/run.py

bench-cold: venv ## Cold starts, bursts at zero and a step of load, as callers see them (ARGS=--real: real cluster)
	@$(PY) tests/bench/cold.py $(ARGS)

bench-control: venv ## What 10,000 Functions and 2,000 instances cost operator and gateway, and how soon a change acts
	@$(PY) tests/bench/control.py $(ARGS)

bench-fairness: venv ## Whether one function's overload at the gateway touches another's latency
	@$(PY) tests/bench/fairness.py $(ARGS)

bench-events: venv ## Asynchronous invocations against a bare JetStream loop, schedules against the clock, memory of a backlog
	@$(PY) tests/bench/events.py $(ARGS)

bench-scaling: venv ## The autoscaler's decisions on traces, against Knative's, a fixed keep-alive and an oracle
	@$(PY) tests/bench/scaling/run.py

chaos: venv ## Break and change everything under load, and account for every call (ARGS="--quick", ARGS=--real)
	@$(PY) tests/chaos/run.py $(ARGS)

chaos-events: venv ## Kill gateways, functions and NATS while events of every source flow, and account for each (ARGS="--quick")
	@$(PY) tests/chaos/events/run.py $(ARGS)

MINUTES ?= 10
soak: venv ## Half that load for MINUTES: memory, descriptors and tasks of every process must stay flat
	@$(PY) tests/chaos/soak.py --minutes $(MINUTES) $(ARGS)

##@ Real Kubernetes
cluster: venv ## A real Kubernetes on this machine (Debian 12, root), or the one that KUBECONFIG names
	@$(PY) tests/cluster/kappa_cluster.py up $(if $(CI),--fresh)

cluster-down: ## Stop what `make cluster` started
	@test ! -x $(PY) || $(PY) tests/cluster/kappa_cluster.py down

e2e: venv ## Build the images, install the chart on the cluster, run the end-to-end tests
	@KAPPA_TEST_KUBECONFIG=$${KUBECONFIG:-.cluster/kubeconfig} $(PY) -m pytest tests/integration/api -m real
	@$(PY) -m pytest tests/e2e -v

##@ Upkeep
venv: $(VENV)/.ready ## Make .venv with every package, pinned by hash

$(VENV)/.ready: requirements/dev.txt $(addsuffix /pyproject.toml,$(COMPONENTS))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Kappa needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making $(VENV) (once; about a minute with an empty package cache) ..."
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment: install its venv package (Debian: python3-venv)" >&2; exit 1; }
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation $(addprefix -e ,$(COMPONENTS))
	@touch $@

requirements: ## Pin the newest versions of all packages, with hashes and without addresses
	@for name in dev operator gateway runtime nats fuzz; do \
	  constraint=$$([ $$name = dev ] || echo "-c dev.txt"); \
	  (cd requirements && pip-compile --upgrade --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-emit-trusted-host --allow-unsafe --strip-extras $$constraint $$name.in -o $$name.txt); done

clean: down ## Remove everything that was built here
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .kappa
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo up down test unit integration fuzz lint type format bench bench-cold bench-control bench-fairness bench-events chaos chaos-events soak bench-scaling cluster cluster-down e2e venv requirements clean
