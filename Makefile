# Everything runs in .venv, which is made from requirements.lock when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The image is named after the version, the commit and other EXTRAS than usual, so that what a name stands for never changes.
DOCKER ?= docker
REGISTRY ?=
TORCH ?= cpu
EXTRAS =
comma := ,
CONTENTS := mtlrank components pipelines images .dockerignore pyproject.toml requirements.lock
DIRTY = $(if $(shell git status --porcelain -- $(CONTENTS) 2>/dev/null),-dirty)
COMMIT = $(shell git rev-parse --verify -q HEAD 2>/dev/null)
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' mtlrank/__init__.py)
TAG = $(VERSION)$(if $(COMMIT),-g$(shell git rev-parse --short=10 HEAD))$(DIRTY)$(if $(EXTRAS),-$(subst $(comma),.,$(EXTRAS)))$(if $(filter cuda,$(TORCH)),-cuda)
MTLRANK_IMAGE ?= $(if $(REGISTRY),$(REGISTRY:/=)/)mtlrank:$(TAG)
pipeline submit schedule: export MTLRANK_IMAGE := $(MTLRANK_IMAGE)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all check format pipeline golden bench image push submit schedule clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(INSTALLED)  ## Install everything into .venv

$(INSTALLED): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))" || \
		{ echo "mtlrank needs Python 3.11 to 3.13: name one, as in make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12"; exit 1; }
	@echo "Installing into $(VENV): a few minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(INSTALLED)

run: $(INSTALLED)  ## Run the main job end to end on the embedded collection (minutes, no network, no cluster)
	@$(BIN)/python -m pipelines.local

test: $(INSTALLED)  ## Run the tests that take minutes
	@$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not docker and not gpu"

test-all: $(INSTALLED)  ## Run every test that this machine can
	@$(BIN)/python -m pytest

check: $(INSTALLED)  ## Format, lint, types, import contracts: what CI runs beside the tests
	@$(BIN)/ruff format --check --quiet . || (echo "run make format" && false)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache | tail -n 3
	@echo "All is well."

format: $(INSTALLED)  ## Rewrite the code in the house format
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

pipeline: $(INSTALLED)  ## Compile the pipelines into build/, for one node, for several, and for studies
	@$(BIN)/python -m pipelines.compile build/mtl_ranking.yaml
	@$(BIN)/python -m pipelines.compile build/mtl_ranking_nodes.yaml
	@$(BIN)/python -m pipelines.compile build/mtl_study.yaml

golden: $(INSTALLED)  ## Rewrite tests/golden; review the diff
	@MTLRANK_IMAGE= $(BIN)/python -m pipelines.compile tests/golden/mtl_ranking.yaml
	@MTLRANK_IMAGE= $(BIN)/python -m pipelines.compile tests/golden/mtl_ranking_nodes.yaml
	@MTLRANK_IMAGE= $(BIN)/python -m pipelines.compile tests/golden/mtl_study.yaml

bench: $(INSTALLED)  ## Run the benchmarks; BODY=/path/to/a/bert measures training and scoring too
	@$(BIN)/python -m benchmarks.batches
	@$(BIN)/python -m benchmarks.prepare
	@$(BIN)/python -m benchmarks.balance
ifdef BODY
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation -c requirements.lock -e '.[annotate,bench]'
	@$(BIN)/python -m benchmarks.train --body $(BODY)
	@$(BIN)/python -m benchmarks.predict --body $(BODY)
endif

submit: $(INSTALLED)  ## Run the pipeline on the cluster of KFP_ENDPOINT: make submit ARGS='seed=7 --watch'
	@$(BIN)/python -m pipelines.submit $(ARGS)

schedule: $(INSTALLED)  ## Retrain on a schedule: make schedule ARGS="create nightly --cron '0 3 * * *' seed=7"
	@$(BIN)/python -m pipelines.schedule $(ARGS)

image:  ## Build the image of all steps; TORCH=cuda for GPUs, EXTRAS and DOCKER_BUILD_FLAGS as docs/image.md says
	@test -z "$(findstring EXTRAS=,$(DOCKER_BUILD_FLAGS))" || \
		(echo "make image: give EXTRAS=... to make, not to the build: the name must say what is in the image" >&2 && false)
	@$(DOCKER) build $(DOCKER_BUILD_FLAGS) $(if $(EXTRAS),--build-arg EXTRAS=$(EXTRAS)) --build-arg TORCH=$(TORCH) --build-arg VERSION=$(VERSION) \
		--build-arg COMMIT=$(or $(COMMIT),unknown)$(DIRTY) --build-arg SOURCE=$(SOURCE) -t $(MTLRANK_IMAGE) -f images/mtlrank/Dockerfile .
	@echo "$(MTLRANK_IMAGE): $$(( $$($(DOCKER) image inspect --format '{{.Size}}' $(MTLRANK_IMAGE)) / 1000000 )) MB"

push:  ## Push the image to REGISTRY, from a checkout without changes
	@test -n "$(COMMIT)" -a -z "$(DIRTY)" || (echo "make push: commit first: the tag says what is in the image" >&2 && false)
	@test -n "$(REGISTRY)" || (echo "make push: say where to, such as REGISTRY=ghcr.io/my-team" >&2 && false)
	@$(DOCKER) push $(MTLRANK_IMAGE)

clean:  ## Remove what was built and run
	rm -rf $(VENV) build runs data
