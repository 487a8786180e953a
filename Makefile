# `make demo` runs the main job on a real Engine, `make test` passes the tests. Each sets up all that it needs:
# a virtual environment in .venv, and a private, throwaway Engine and registry that are gone afterwards.

PYTHON ?= python3
ENGINE ?= docker20
ENGINES ?=
ARGS ?=
SECONDS ?= 600
SEED ?=
NEWEST ?= 3.15
WORKERS ?= logical
SWEEP ?= sample

# The programs that tests start would compile this package each time.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# Tests run on all cores; those of the one Engine stay together in one process. WORKERS=0 runs them in this one.
OPTIONS = -n $(WORKERS) --dist loadscope $(if $(filter every-byte,$(SWEEP)),--every-byte)
# Where there is no Engine, tests are handed out in batches, which costs less.
SPREAD = $(subst loadscope,load,$(OPTIONS))
PYTEST = $(BIN)/python -m pytest $(OPTIONS)
# ENGINES=all runs the tests marked `engine` on every Engine, two Engines at a time, and the others once.
CHOSEN = $(if $(filter all,$(ENGINES)),$(shell $(BIN)/python -m engines list | cut -d' ' -f1),$(ENGINES))
SUMMARY := .cache/summary
PORTABLE := aiodocker_images examples
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test unit newest oldest torture recordings bench check docs format clean

demo: .venv/.demo  ## import, tag, push, remove, pull, save, load on a real Engine: yours if DOCKER_HOST is set
	@$(BIN)/python -m engines run auto -- $(BIN)/python examples/quickstart.py

# SWEEP=every-byte cuts every recorded answer and request at every byte, as .ci/run does, and not at some of them.
test: .venv/.dev  ## every test, on a private Engine; ARGS="-k pull" chooses some; ENGINES=all, ENGINES="docker28 podman"
	@$(BIN)/python -m engines prepare $(ENGINE)
ifeq ($(ENGINES),)
	@$(BIN)/python -m engines run $(ENGINE) -- $(PYTEST) $(ARGS)
else
	@mkdir -p $(dir $(SUMMARY)); rm -f $(SUMMARY)
	@$(BIN)/python -m engines prepare $(CHOSEN) & \
	trap 'exit 130' INT TERM; status=0; \
	run() { \
	  name=$$1; shift; \
	  $(BIN)/python -m engines run $$name -- $(BIN)/python -m pytest "$$@" $(ARGS) || [ $$? = 5 -a -n '$(ARGS)' ]; }; \
	run $(ENGINE) $(OPTIONS) -m "not engine" --summary=once:$(SUMMARY) || status=1; \
	wait; \
	set -- $(CHOSEN); \
	while [ $$# -gt 0 ]; do \
	  second=; \
	  if [ $$# -gt 1 ]; then \
	    run $$2 -m engine --summary=$$2:$(SUMMARY) >$(SUMMARY).$$2 2>&1 & second=$$!; \
	  fi; \
	  echo "--- $$1"; run $$1 -m engine --summary=$$1:$(SUMMARY) || status=1; shift; \
	  if [ -n "$$second" ]; then \
	    wait $$second || status=1; echo "--- $$1"; cat $(SUMMARY).$$1; shift; \
	  fi; \
	done; \
	echo; cat $(SUMMARY); exit $$status
endif

# Not the sweeps of tests/faults, nor what starts programs: `make test` runs all.
unit: .venv/.dev  ## the quick tests, without an Engine
	@$(BIN)/python -m pytest $(SPREAD) tests/unit -m "not engine and not once and not program" $(ARGS)

newest: .cache/python$(NEWEST)/.dev  ## all tests without an Engine on the newest Python, unpacked as Engines are; NEWEST=3.14
	@$(<D)/bin/python -m pytest $(SPREAD) -m "not engine and not once" $(ARGS)

oldest: .cache/oldest/.dev  ## the same with the oldest versions of all dependencies that are allowed, on Python 3.11
	@$(<D)/bin/python -m pytest $(SPREAD) -m "not engine and not once" $(ARGS)

torture: .venv/.dev  ## faults and loads for SECONDS (600), from a SEED that is printed; ENGINES as in test
	@seed="$(SEED)"; [ -n "$$seed" ] || seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); echo "seed $$seed"; \
	names="$(or $(CHOSEN),$(ENGINE))"; set -- $$names; share=$$(( $(SECONDS) / ($$# + 1) )); status=0; \
	$(BIN)/python -m tests.support.torture scripted --seconds $$share --seed $$seed || status=1; \
	for name in $$names; do \
	  $(BIN)/python -m engines run $$name -- $(BIN)/python -m tests.support.torture engine --seconds $$share --seed $$seed || status=1; \
	done; exit $$status

recordings: .venv/.dev  ## record anew what each of ENGINES answers, for the tests that cut it at every byte
	@for name in $(or $(CHOSEN),$(ENGINE)); do $(BIN)/python -m engines run $$name -- $(BIN)/python -m tests.support.record || exit 1; done

bench: .venv/.dev  ## how fast, beside its peers: benchmarks/RESULTS.md; ARGS="--rows save,load --rounds 3" chooses
	@$(BIN)/python -m benchmarks $(ARGS)

check: .venv/.dev  ## lint, format, types on Linux, Windows and macOS, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
# Tests, engines and benchmarks run on Linux alone. What users import must be right on their platforms, too.
	$(BIN)/mypy --platform win32 $(PORTABLE)
	$(BIN)/mypy --platform darwin $(PORTABLE)
	$(BIN)/pyright --pythonpath $(BIN)/python --pythonplatform Windows $(PORTABLE)
	$(BIN)/pyright --pythonpath $(BIN)/python --pythonplatform Darwin $(PORTABLE)
	$(BIN)/lint-imports --no-cache

docs: .venv/.docs  ## the site, in build/site: every page, every link inside, and the reference out of the docstrings
	@$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet --jobs auto docs build/site
	@echo "build/site/index.html"

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

.venv/.docs: pyproject.toml constraints.txt | .venv/.dev
	@$(INSTALL) --editable '.[docs]'
	@touch $@

# Debian's Python has no pip, and the pip of .venv is as old as its Python.
.cache/python%/.dev: pyproject.toml constraints.txt | .venv/.dev
	@python=$$($(BIN)/python -m engines python $*) && $$python -m venv --without-pip $(@D)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(@D)/pip pip
	@PYTHONPATH=$(@D)/pip $(subst $(BIN),$(@D)/bin,$(INSTALL)) --editable '.[dev]'
	@touch $@

# What these depend on in turn is as new as they let it be.
.cache/oldest/.dev: pyproject.toml tests/support/minima.py | .venv/.dev
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "make oldest needs Python 3.11, the oldest one that is allowed, and .venv has another." >&2; \
	  echo "Type: make clean oldest PYTHON=python3.11" >&2; exit 1; }
	@$(BIN)/python -m venv --clear $(@D)
	@$(BIN)/python -m tests.support.minima >$(@D)/constraints.txt
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(@D)/constraints.txt --editable '.[dev]'
	@touch $@

# Debian's python3 comes without what venv needs to put pip into the new environment.
.venv/bin/pip:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	  then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv >/dev/null; \
	  else echo "$(PYTHON) cannot make virtual environments: its venv module lacks ensurepip." >&2; \
	    echo "Type: sudo apt-get install python3-venv" >&2; exit 1; fi; }
	@$(PYTHON) -m venv .venv
