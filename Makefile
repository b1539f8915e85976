# Everything the project does, by name. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
export LEADRE_HOME ?= .leadre

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-install check bench docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## create .venv and install the pinned packages (does nothing when up to date)

$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) '.[all]'
	@touch $@

$(DEVELOPED): $(INSTALLED)
	$(PIP_INSTALL) '.[all,dev]'
	@touch $@

demo: setup ## the whole pipeline on a made-up ad world, through a real worker, to a ranker's features and report.html
	$(BIN)/leadre demo

test: $(DEVELOPED) ## run everything this machine can run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-install: $(DEVELOPED) ## build the wheel, install it outside the checkout, follow the tutorial with it and run every command of the documentation
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/install -m install

check: $(DEVELOPED) ## formatting, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEVELOPED) ## all quick benchmarks
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file --quick || exit 1; done

docs: $(DEVELOPED) ## write the tutorial's outputs and the walkthrough (run `make demo` first), build the site into site/
	$(BIN)/leadre services up
	$(BIN)/leadre trace --markdown docs/walkthrough.md
	PYTHONPATH=. $(BIN)/python docs/site/tutorial.py
	PYTHONPATH=. $(BIN)/python docs/site/licences.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## stop the servers; remove the demo's data, the virtual environment and caches
	-test -x $(BIN)/leadre && $(BIN)/leadre services down
	rm -rf "$$(readlink -f '$(LEADRE_HOME)/services')" '$(LEADRE_HOME)' $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
