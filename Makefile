# Two commands on a fresh machine: `make demo` and `make test`. Both need Python 3.11, make and pip, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test slow quick lint types layers check clean

demo: $(VENV)/.installed
	$(BIN)/neblina demo

# a core each, one thread each: what the tests compute is too small for more
TOGETHER := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test: $(VENV)/.installed-dev
	$(TOGETHER) -m "not slow" --durations=25

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

quick: $(VENV)/.installed-dev
	$(TOGETHER) -m "not slow and not training"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(VENV)/.installed-dev
	$(BIN)/mypy

layers: $(VENV)/.installed-dev
	$(BIN)/lint-imports

check: lint types layers test slow

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo
