# `make demo` runs the main job on a real Engine, `make test` passes the tests. Each sets up all that it needs:
# a virtual environment in .venv, and a private, throwaway Engine and registry that are gone afterwards.

PYTHON ?= python3
ENGINE ?= docker20
ARGS ?=

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test unit check format clean

demo: .venv/.demo  ## import, tag, push, remove, pull, save, load on a real Engine: yours if DOCKER_HOST is set
	@$(BIN)/python engines.py run auto -- $(BIN)/python examples/quickstart.py

test: .venv/.dev  ## every test, on a private Engine; ARGS="-k pull" chooses some
	@$(BIN)/python engines.py run $(ENGINE) -- $(BIN)/python -m pytest $(ARGS)

unit: .venv/.dev  ## the tests that need no Engine
	@$(BIN)/python -m pytest -m "not engine" $(ARGS)

check: .venv/.dev  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

format: .venv/.dev  ## what check asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## forget the virtual environment and the unpacked Engines
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/pip
	@$(INSTALL) --editable '.[cli]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/pip
	@$(INSTALL) --editable '.[dev]'
	@touch $@ .venv/.demo

# Debian's python3 comes without what venv needs to put pip into the new environment.
.venv/bin/pip:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	  then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv >/dev/null; \
	  else echo "$(PYTHON) cannot make virtual environments: its venv module lacks ensurepip." >&2; \
	    echo "Type: sudo apt-get install python3-venv" >&2; exit 1; fi; }
	@$(PYTHON) -m venv .venv
