# make quickstart   train the embedded default on this machine and ask it four questions
# make test         run the whole test suite
# make check        lint and format check
# Each sets up .venv first, once; PYTHON=python3.12 chooses another interpreter, VENV=DIR another place.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test check format clean

quickstart: $(INSTALLED)
	$(BIN)/python train.py all --config configuration/recipes/quickstart.yaml --resume

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
