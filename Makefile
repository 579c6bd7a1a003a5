# make quickstart   train and score the recipe quickstart on this machine, and show four of its answers
# make test         run the whole test suite
# make neighbours   test a MiniGPT in other people's libraries, and the demo in a browser
# make readme       run every command and snippet of README and docs in a fresh clone: fifteen minutes
# make check        lint, format, types of the model package, and that no floor imports from one above it
# Each sets up .venv first, once (neighbours: .venv-neighbours, some gigabytes); PYTHON=python3.12 chooses another
# interpreter, VENV=DIR and NEIGHBOURS=DIR another place. One without pip, or whose Python is too old, is set up again.

PYTHON ?= python3
VENV ?= .venv
NEIGHBOURS ?= .venv-neighbours
BIN := $(VENV)/bin
PYTEST := -m pytest --numprocesses auto --dist worksteal
# Run by a Python of any age: whether it is new enough.
SUPPORTED := import sys; sys.exit(sys.version_info < (3, 11))

.PHONY: quickstart test neighbours readme check format clean

quickstart: $(VENV)/.installed
	$(BIN)/python train.py all --config configuration/recipes/quickstart.yaml --resume

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

neighbours: $(NEIGHBOURS)/.installed
	OMP_NUM_THREADS=1 $(NEIGHBOURS)/bin/python $(PYTEST) -m neighbours

readme: $(VENV)/.installed
	$(if $(wildcard $(NEIGHBOURS)/.installed),$(NEIGHBOURS)/bin,$(BIN))/python -m tests.readme

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
	@if ! { $(@D)/bin/python -c '$(SUPPORTED)' && \
	    { $(@D)/bin/python -m pip --version || $(@D)/bin/python -m ensurepip; }; } > /dev/null 2>&1; then \
	  fail() { echo "error: $$*" >&2; exit 1; }; \
	  found=$$($(PYTHON) --version 2>&1 | grep -o 'Python [0-9.]*' || echo not found); \
	  $(PYTHON) -c '$(SUPPORTED)' 2> /dev/null || \
	    fail "PYTHON=$(PYTHON) is $$found, wanted Python 3.11 or newer"; \
	  $(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
	    fail "PYTHON=$(PYTHON) has no venv with pip; on Debian and Ubuntu, install python3-venv"; \
	  test -e $(@D)/pyvenv.cfg || test -z "$$(ls -A $(@D) 2> /dev/null)" || \
	    fail "$(@D) has files in it and is not an environment that venv has made"; \
	  $(PYTHON) -m venv --clear $(@D); \
	fi
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
