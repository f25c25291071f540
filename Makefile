# All targets but gpu start from a machine with only Python: they make .venv and install what they need into it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test style types suite docs gpu clean

demo: .venv/demo
	$(BIN)/mdp demo

# side by side; all of them end, and one that fails makes the whole fail
test: .venv/test
	$(MAKE) --jobs 3 --keep-going style types suite

style: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/mypy

# Files in the order of tests/conftest.py: those that take longest begin first.  Tests start dozens of interpreters:
# none but the first need compile the sources, whatever the environment says of that.
suite: .venv/test
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

docs: .venv/test
	$(BIN)/python -m sphinx -W --keep-going --nitpicky -q -E -a -d build/doctrees docs build/docs
	@echo build/docs/index.html

# what only a GPU can show, by the Python that has its torch; results in benchmarks/, or in $OUT where that is set
gpu:
	timeout --kill-after=10 540 $(PYTHON) -m tests.gpu.first_contact

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

# with a browser for the tests that open pages, where one can be had
.venv/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	sh tests/browser.sh
	touch $@

clean:
	rm -rf .venv build docs/generated *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
