# Everything a person runs by hand. `make search` and `make test` set up what they need.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: search test chaos slow check golden format clean

search: $(VENV)/.installed      ## run the embedded default search
	$(BIN)/python -m tuner search

test: $(VENV)/.dev              ## run the tests, two files at a time; what fails beside another file is run again alone
	$(BIN)/python -m pytest -n 2 --dist loadfile || { test $$? -eq 1 && $(BIN)/python -m pytest --last-failed; }

CHAOS := -m "chaos or not chaos" tests/chaos tests/trainables/test_resume.py tests/trainables/hub/test_local_cache.py \
  tests/trainables/test_fitting.py tests/trainables/packed/test_chunking.py tests/integration/test_signals.py \
  tests/tuner/results/test_requests.py tests/tuner/study/test_shared_journal.py

chaos: $(VENV)/.dev             ## kill, signal, starve and lie: what RELIABILITY.md promises, most of an hour, as `test` does it
	TUNER_CHAOS=whole TUNER_FUZZ=300 $(BIN)/python -m pytest -n 2 --dist loadfile $(CHAOS) \
	  || { test $$? -eq 1 && TUNER_FUZZ=300 $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(CHAOS); }

slow: $(VENV)/.dev              ## the tests that the default run leaves out: clusters, longer searches, and Slurm where it answers
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.dev             ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(VENV)/.dev            ## write the golden files anew: read the diff before you commit it
	TUNER_UPDATE_GOLDEN=1 $(BIN)/python -m pytest -m "not slow" tests/tuner tests/test_documents.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tuner needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 search" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
