# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10

.PHONY: demo test test-all lint check clean
.DELETE_ON_ERROR:

demo: .venv/.demo  ## rank photographs and their damaged versions, and write a report about them
	$(BIN)/tastemaker demo --output demo-output

test: .venv/.test  ## run the tests that a change needs
	$(PYTEST) -m "not slow" $(ARGS)

test-all: .venv/.test  ## run all tests: kills, clusters, long runs and large inputs too
	$(PYTEST) $(ARGS)

lint: .venv/.test  ## check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test  ## all that a change must pass before review

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[demo]'
	touch $@

# torch first and alone: a free choice would pull gigabytes of CUDA.
.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[dev]'
	touch $@

clean:  ## delete what the other targets made
	rm -rf .venv demo-output
