# Everything sets itself up: a virtual environment in .venv with the pinned packages. Needs make and Python 3.11 or later.
PYTHON ?= python3
BIN := .venv/bin
# Each test process would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup compare scaling page-tables docs notebooks test test-long test-plain mutants wheel lint clean
.DEFAULT_GOAL := compare

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: .venv/installed  ## the virtual environment in .venv, with the pinned packages

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "toymodels needs Python 3.11 or later: make PYTHON=python3.11 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@

compare: setup  ## the genericity experiment: tables, figures and record in runs/compare
	$(BIN)/toymodels compare --out runs/compare

scaling: setup  ## RMS and largest error of the analytic readoff over widths, against theory: docs/figures/analytic_scaling.png
	$(BIN)/python analysis/analytic_scaling.py --out analysis/results --figures docs/figures

page-tables: setup  ## the tables of the pages in docs/, from the tables in analysis/results
	$(BIN)/python analysis/page_tables.py

.venv/docs-installed: .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[docs]'
	touch $@

docs: .venv/docs-installed  ## the documentation site in build/site, strictly: open build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

notebooks: .venv/docs-installed  ## notebooks/*.ipynb, from the .py beside them
	$(BIN)/jupytext --to ipynb --update notebooks/*.py

test: setup  ## the whole test suite, but for the checks that take minutes
	$(BIN)/python -m pytest -n auto --maxprocesses 4

test-long: setup  ## the checks that take minutes
	$(BIN)/python -m pytest -m long -n auto --maxprocesses 4

test-plain: setup  ## the whole test suite on the plain core alone: the fast wing is off
	TOYMODELS_PLAIN=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

mutants: setup  ## plant faults, one at a time, and list those that no test catches (hours): make mutants ONLY="core/losses --most 50"
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev,mutants]'
	nice -n 15 $(BIN)/python tests/mutants.py $(ONLY)

wheel: setup  ## a wheel in build/wheel, tried in an environment with only what it requires
	rm -rf build/lib build/wheel build/wheelenv
	$(BIN)/python -m pip wheel --disable-pip-version-check -q --no-deps -w build/wheel .
	$(PYTHON) -m venv build/wheelenv
	build/wheelenv/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt build/wheel/*.whl
	cd build/wheelenv && bin/toymodels --version && bin/toymodels compare --m 12 --d 24 --steps 20 --task and --out run
	cd build/wheelenv && bin/toymodels report run

lint: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove .venv, runs/ and caches
	rm -rf .venv runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
