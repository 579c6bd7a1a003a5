# make quickstart   train the embedded default on this machine and ask it four questions
# make test         run the whole test suite
# make neighbours   test a MiniGPT in other people's libraries, and the demo in a browser
# make readme       run every command and snippet of README and docs in a fresh clone: fifteen minutes
# make check        lint, format, types of the model package, and that no floor imports from one above it
# Each sets up .venv first, once (neighbours: .venv-neighbours, some gigabytes); PYTHON=python3.12 chooses another
# interpreter, VENV=DIR and NEIGHBOURS=DIR another place.

PYTHON ?= python3
VENV ?= .venv
NEIGHBOURS ?= .venv-neighbours
BIN := $(VENV)/bin
PYTEST := -m pytest --numprocesses auto --dist worksteal

.PHONY: quickstart test neighbours readme check format clean

quickstart: $(VENV)/.installed
	$(BIN)/python train.py all --config configuration/recipes/quickstart.yaml --resume

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

neighbours: $(NEIGHBOURS)/.installed
	OMP_NUM_THREADS=1 $(NEIGHBOURS)/bin/python $(PYTEST) -m neighbours

readme: $(VENV)/.installed
	$(or $(wildcard $(NEIGHBOURS)/bin/python),$(BIN)/python) -m tests.readme

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: EXTRAS := dev
$(NEIGHBOURS)/.installed: EXTRAS := dev,neighbours,space
$(VENV)/.installed $(NEIGHBOURS)/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
