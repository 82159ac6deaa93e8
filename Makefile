# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test lint check clean
.DELETE_ON_ERROR:

demo: .venv/.demo  ## rank photographs and their damaged versions, and draw a page of them
	$(BIN)/tastemaker demo --output demo-output

test: .venv/.test  ## run the tests, with coverage
	$(BIN)/python -m pytest --cov=tastemaker --cov-report=term:skip-covered $(ARGS)

lint: .venv/.test  ## check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

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
