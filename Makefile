# Two commands from a fresh clone, with only Python and make: `make demo` and `make test`.
# The mode `compat` is a path file: a Python that starts in the folder above the clone, whose name is the package's, finds
# the package in it and not the bare folder.
PYTHON ?= python3
BIN := .venv/bin
EDITABLE := --config-settings editable_mode=compat --editable

.PHONY: demo test test-slow lint docs clean

demo: .venv/demo.stamp
	$(BIN)/retinaface-tf detect retinaface_tf/samples/astronaut.jpg --output demo

# The tests of one file go to one worker: some share a training run as a fixture. oneDNN keeps what it prepares for each
# size of photo, and each thread's arena what it once took: without both, a worker takes 1.8 GB instead of 2.6.
# The slow part runs as users do.
test: .venv/dev.stamp
	TF_ENABLE_ONEDNN_OPTS=0 MALLOC_ARENA_MAX=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-slow: .venv/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in build/site: the notebooks executed, the API from the docstrings. A warning fails it.
docs: .venv/docs.stamp
	$(BIN)/python docs/site/notebooks.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(EDITABLE) .
	@touch $@

.venv/dev.stamp: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(EDITABLE) '.[dev]'
	@touch $@ .venv/demo.stamp

.venv/docs.stamp: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(EDITABLE) '.[docs]'
	@touch $@

clean:
	rm -rf .venv build dist demo *.egg-info
