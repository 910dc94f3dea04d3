# make demo   install, train on handwritten digits, sample along the dial, write runs/demo/report.html (minutes, no GPU)
# make test   install the development tools and run every test
# make lint   style, types, which way imports run, and the documentation: every link, formula and reference page
# make docs   build the documentation into site/
# make clean  remove the environment and caches (never runs/)
#
# PYTHON=python3.12 make demo   chooses the interpreter;   VENV=/elsewhere make demo   chooses the environment.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
PAGES := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: demo test lint docs clean
.DEFAULT_GOAL := demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'diffflow needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of packages: a second call installs nothing unless what is wanted has changed.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo 'installing into $(VENV) (about a minute) ...'
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo 'installing the $* tools into $(VENV) ...'
	$(PIP) --editable '.[$*]'
	@touch $@ $(VENV)/.installed

# Threads that wait by sleeping: by default they wait by spinning, and on a machine that is busy with something else as
# well that costs far more (measured: 18 times slower) than it saves on an idle one.
demo: $(VENV)/.installed
	OMP_WAIT_POLICY=PASSIVE $(BIN)/diffflow demo

# A Chromium for the tests of the explorer: the system's, else Debian's where packages can be installed, else playwright's.
$(VENV)/.browser: $(VENV)/.installed-dev
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { echo 'installing Chromium ...'; \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || $(BIN)/python -m playwright install --with-deps chromium || $(BIN)/python -m playwright install chromium; }
	@touch $@

# One thread per worker: two workers that each start a thread per core only get in each other's way. Each begins with
# one half of the tests, so that what a file trains is trained once, and takes over half of the rest of a slower one.
test: $(VENV)/.installed-dev $(VENV)/.browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.installed-dev $(VENV)/.installed-docs
	$(BIN)/python -m ruff check .
	$(BIN)/python -m pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(PAGES)

docs: $(VENV)/.installed-docs
	$(PAGES)

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache .hypothesis
