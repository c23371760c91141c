# `make up` serves a real model, `make test` checks everything. Both install what they need into .venv, from hashes, once.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
LOCAL := .venv/.installed-local
DEV := .venv/.installed-dev
NODE_TESTS := tests/sdk/node
NODE := $(NODE_TESTS)/node_modules/.installed
PYTEST_ARGS ?=
# Two at once, each file in one of them and in order (else the longest would come last): most tests wait for processes.
# More than that starves those that watch time.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --no-header \
	--no-annotate --python-version 3.11 --upgrade

.DEFAULT_GOAL := help
.PHONY: help up test coverage test-services test-vllm lint bench bench-gateway images chart crds docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(LOCAL) ## install what is missing, then serve the models of swell.yaml (or a small default one)
	@exec $(BIN)/swell up $(UP_ARGS)

test: $(DEV) $(if $(shell command -v npm),$(NODE)) ## lint, types and every test that needs no root
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest $(PARALLEL) -rs $(PYTEST_ARGS)

coverage: $(DEV) $(if $(shell command -v npm),$(NODE)) ## the tests again with what they cover, in the processes they start as well
	@$(BIN)/python -m pytest --cov --cov-config=tests/processes.coveragerc --cov-report=term $(PYTEST_ARGS)

test-services: $(DEV) ## the tests that need a program installed by root, such as Postgres
	@bash tests/services.sh

test-vllm: $(DEV) ## opt-in: a real vLLM on the CPU behind Swell, in an environment of its own (several GB)
	@bash tests/vllm/run.sh

lint: $(DEV) ## formatter, linter, types, import layers
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo

bench: bench-gateway ## every benchmark

bench-gateway: $(DEV) ## the gateway beside nginx and other routers, on this machine
	@$(BIN)/python -m benchmarks.gateway $(BENCH_ARGS)

images: $(DEV) ## container images of gateway, server and llama.cpp (IMAGE_ARGS="--tool podman --base IMAGE …")
	@$(BIN)/python deploy/images/build.py $(IMAGE_ARGS)

chart: $(DEV) ## renew the Helm chart's schema of values and its golden files
	@$(BIN)/python deploy/helm/renew.py

crds: $(DEV) ## renew the definitions of the custom resources
	@$(BIN)/python deploy/crds/renew.py

docs: $(DEV) ## check that the documentation agrees with the code
	@$(BIN)/python -m pytest tests/repository/test_docs.py $(PYTEST_ARGS)

lock: $(DEV) ## renew the lock files in requirements/ and the Node lock
	$(COMPILE) --extra local --extra postgres --extra kubernetes --extra keda --extra dev -o requirements/dev.txt pyproject.toml requirements/build.in
	$(COMPILE) --extra local --constraint requirements/dev.txt -o requirements/local.txt pyproject.toml requirements/build.in
	$(COMPILE) --extra postgres --extra kubernetes --extra keda --constraint requirements/dev.txt -o requirements/server.txt pyproject.toml
	$(COMPILE) --constraint requirements/dev.txt -o requirements/gateway.txt requirements/gateway.in
	$(COMPILE) --constraint requirements/dev.txt -o requirements/engine-llama.cpp.txt requirements/engine-llama.cpp.in
	cd $(NODE_TESTS) && npm install --package-lock-only --ignore-scripts

clean: ## remove what was built or installed; models, keys and usage stay
	rm -rf .venv .cache/vllm build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* \
		$(NODE_TESTS)/node_modules src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Swell needs Python 3.11 or later; say which: make PYTHON=python3.11 up" \
		if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

# pip prints nothing unless something fails; the first run downloads, a second one finds the stamp.
$(LOCAL): requirements/local.txt pyproject.toml | .venv/bin/python
	@echo "installing Swell with its local engine into .venv"
	@$(PIP) install --require-hashes -r requirements/local.txt
	@$(PIP) install --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(DEV): requirements/dev.txt $(LOCAL)
	@echo "installing what the tests need into .venv"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(NODE): $(NODE_TESTS)/package-lock.json
	@cd $(NODE_TESTS) && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@
