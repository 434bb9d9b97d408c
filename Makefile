# `make demo` and `make test` set up all that they need in .venv; repeating them is quick. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
# Two at once, and all that use the test cluster in one of them: they wait for Slurm more than they compute.
PYTEST ?= -n 2 --dist loadgroup
BIN := $(VENV)/bin
INSTALL = DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test test-slow check format install install-dev system cluster cluster-down clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: install  ## pretrain a small NeoBERT on generated text, fine-tune it on three tasks, and show the table
	@$(BIN)/recipe submit recipes/demo.yaml --cluster local --new --watch
	@$(BIN)/recipe results demo
	@echo "Text and tasks are synthetic (generated from a grammar): these scores say nothing about GLUE."

test: install-dev system  ## all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow" $(PYTEST)

test-slow: install-dev system  ## all tests, the exhaustive ones too
	$(BIN)/python -m pytest $(PYTEST)

check: install-dev  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install-dev  ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.installed  ## what training needs, into .venv
install-dev: $(VENV)/.installed-dev  ## what the tests need as well

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON=...)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (PyTorch is large: this takes a minute or more)"
	@$(INSTALL) "torch==$$(sed -n 's/^torch==//p' constraints.txt)" -e ".[train,eval]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(INSTALL) "torch==$$(sed -n 's/^torch==//p' constraints.txt)" -e ".[train,eval,deepspeed,submitit,minilm,dev]"
	@touch $@

system:  # Slurm, shellcheck and Apptainer for the tests that need them: as root on Debian, and only what is missing
	@bash tests/cluster/install.sh || echo "so tests that need Slurm will be skipped"
	@bash tests/apptainer/install.sh || echo "so tests that need images will be skipped"

cluster: system  ## start a Slurm cluster of four nodes on this machine, to play with (root, Debian)
	@$(PYTHON) -m tests.cluster up
	@echo "# with that variable set, sinfo, sbatch and $(BIN)/recipe submit --cluster testcluster use the cluster"
	@echo "# $(PYTHON) -m tests.cluster fault crash node1 breaks a node (--help tells more); make cluster-down ends it"

cluster-down:  ## end that cluster, and remove all of it
	@$(PYTHON) -m tests.cluster down

clean:  ## remove .venv and caches; runs stay
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
