# Shortcuts for development; each is one plain command of an environment made by the README's test command.
PYTHON ?= .venv/bin/python

.PHONY: env test slow lint format types check
env:
	python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[dev]'
test:
	$(PYTHON) -m pytest
slow:
	$(PYTHON) -m pytest -m "slow and not gpu and not network and not browser"
lint:
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
format:
	$(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format .
types:
	$(PYTHON) -m mypy
check: lint types test slow
