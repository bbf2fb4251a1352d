# make demo: the whole chain on a real GPU cluster's power.   make test: what CI runs.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: setup build test lint clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@echo "== setting up $(VENV) (python packages, compiled core)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q --upgrade pip
	@$(PY) -m pip install -q "setuptools>=77" "cython>=3.1,<4"
	@$(PY) -m pip install -q --no-build-isolation -e ".[carbon,dev]"
	@touch $@

build: setup
	@$(PY) setup.py -q build_ext --inplace

lint: build
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: build
	$(PY) -m pytest

clean:
	rm -rf build dist *.egg-info ext/*.so
	find ext -name '*.c' ! -name 'safety.c' -delete
