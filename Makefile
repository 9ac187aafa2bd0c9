# Two commands do all the set-up:  make quickstart   make test
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
DATA ?= ../shared/data
OUT ?= out
export OMP_NUM_THREADS ?= 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: quickstart real test test-all cluster-test chaos check format bench-peers clean

quickstart: $(VENV)/core        ## simulated herd -> HDF5 -> shards -> pretraining on 2 ranks -> store -> folds -> page
	launch/quickstart.sh $(OUT)/quickstart

real: $(VENV)/baselines         ## published recordings -> shards -> pretraining with ZeRO-2 -> folds of four data sets -> page
	launch/real.sh $(DATA) $(OUT)/real

test: $(VENV)/dev
	$(BIN)/pytest

test-all: $(VENV)/dev $(VENV)/umap
	$(BIN)/pytest -m ""

cluster-test: $(VENV)/dev       ## two hosts and a SLURM of two nodes on this machine (needs root); part of test-all
	$(BIN)/pytest -m "" -n 1 tests/cluster

chaos: $(VENV)/dev              ## fifty faults over one run on two hosts of this machine, at most an hour (needs root)
	$(BIN)/python tests/cluster/chaos.py --faults 50 --json $(OUT)/chaos.json

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-peers: $(PEERS)/loaders/made $(PEERS)/models/made   ## other loaders and models, for benchmarks/stream.py, build.py and train.py

$(PEERS)/%/made: benchmarks/peers/%.txt
	$(PYTHON) -m venv $(PEERS)/$*
	$(PEERS)/$*/bin/pip install --quiet torch==2.13.0
	$(PEERS)/$*/bin/pip install --quiet --requirement $<
	touch $@

# Made once; a change of the pins makes them again. torch goes first: the pin is met by whichever build the index offers.
$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "error: Python 3.11.4 or newer is needed, $(PYTHON) is older; use make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/baselines: $(VENV)/core
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[baselines]'
	touch $@

$(VENV)/dev: $(VENV)/core launch/packages.sh
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	launch/packages.sh $(VENV)
	touch $@

$(VENV)/umap: $(VENV)/dev
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[umap]'
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(OUT)
