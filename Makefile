# Everything happens in this directory: .venv and .venv-stock (environments), .cache (Kubo, timings).
# Python 3.11 or newer and make are all that must be there; a second call of anything starts at once.

# The first Python that is new enough; `make PYTHON=/path/to/python3` picks another.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && exit; done; echo python3)
endif

BIN := .venv/bin
UV := $(BIN)/uv
INSTALL := $(UV) pip install --quiet --constraint constraints-dev.txt
PIP_QUIET := --quiet --disable-pip-version-check
# Whole files go to one process each: the tests of a file share what was slow to make.
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
TIMED := $(PYTHON) tools/timed.py
export UV_HTTP_TIMEOUT ?= 120
# With it, as in many containers, each of the hundreds of processes of the tests would compile MLflow again: 3 s each.
unexport PYTHONDONTWRITEBYTECODE

# PyTorch's wheels without CUDA are a tenth of the size, but only on an index of its own. Where that cannot be
# reached, the usual ones do. `make TORCH_BACKEND=auto` installs for this machine's GPU.
TORCH_BACKEND ?= cpu
WITH_TORCH := if ls -d .venv/lib/*/site-packages/torch >/dev/null 2>&1; then :; \
	elif UV_HTTP_RETRIES=0 $(UV) pip install --quiet --dry-run --python $(BIN)/python --target .cache/none \
	--torch-backend $(TORCH_BACKEND) torch 2>/dev/null; \
	then export UV_TORCH_BACKEND=$(TORCH_BACKEND); \
	else echo "installing torch with its CUDA libraries, about 3 GB"; fi;

HOURS ?= 0

.DEFAULT_GOAL := help
.PHONY: help demo test test-core check docs bench matrix soak clean kubo stock environments

help:  ## show this
	@sed -n 's/^\([a-z-]*\):.*##/\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-12s%s\n' "$$name" "$$text"; done

demo: .venv/demo-ready  ## train, register, load back by CID and verify: one page of output, nothing to set up
	@$(BIN)/python examples/demo.py

test:  ## everything: checks, all tests, a real Kubo, real MLflow servers
	@rm -f .cache/timings.txt
	@$(MAKE) --no-print-directory -j2 environments
	@$(TIMED) checks $(MAKE) --no-print-directory check
	@$(TIMED) --report
	@$(PYTEST)

test-core: .venv/core-ready  ## the quick tests that need neither Kubo nor servers nor frameworks
	@$(PYTEST) --numprocesses 4 -m "not kubo and not server and not postgres and not frameworks and not soak and not slow"

docs: .venv/dev-ready  ## build the documentation site into docs/_build
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build

check: .venv/dev-ready docs  ## ruff, mypy, who may import whom, and the documentation site
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: .venv/dev-ready  ## run benchmarks/*.py; each prints lines of JSON
	@for script in $(filter-out %/harness.py %/large_run.py %/recorded_database.py %/served.py,$(wildcard benchmarks/*.py)); do $(BIN)/python "$$script" || exit 1; done

matrix: .venv/core-ready  ## the tests that touch MLflow, with the lowest and the newest version that is allowed
	@$(BIN)/python tools/mlflow_matrix.py

soak: .venv/dev-ready  ## attack the store: kill -9, power loss, full disks, races; `make soak HOURS=24` for a day
	@$(BIN)/python tools/soak.py --hours $(HOURS)

clean:  ## remove all that make made
	rm -rf .venv .venv-stock .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache demo-output

environments: .venv/dev-ready .venv-stock/ready kubo

kubo:  ## find Kubo, or download or build it into .cache
	@$(TIMED) "Kubo" $(PYTHON) tools/provision_kubo.py >/dev/null || echo "kubo: the tests that need it will be listed as NOT RUN"

stock: .venv-stock/ready  ## an environment with MLflow and without this package, for the tests

# --- environments; the stamp files say what is installed ---

.venv/uv-ready: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "mlflow-ipfs needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`."; \
		echo "Name another one: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		echo "This Python cannot make environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "installing into .venv"
	@$(BIN)/python -m pip install $(PIP_QUIET) uv
	@touch $@

.venv/core-ready: .venv/uv-ready pyproject.toml constraints-dev.txt
	@$(TIMED) "install package and tools" $(INSTALL) --python $(BIN)/python --editable . --group dev
	@touch $@

.venv/demo-ready: .venv/uv-ready pyproject.toml constraints-dev.txt
	@$(WITH_TORCH) $(TIMED) "install for the demo" $(INSTALL) --python $(BIN)/python --editable ".[demo]"
	@touch $@

.venv/dev-ready: .venv/uv-ready pyproject.toml constraints-dev.txt
	@$(WITH_TORCH) $(TIMED) "install everything" $(INSTALL) --python $(BIN)/python --editable ".[demo]" --group dev --group frameworks
	@touch $@ .venv/core-ready .venv/demo-ready

.venv-stock/ready: .venv/uv-ready pyproject.toml constraints-dev.txt
	@$(UV) venv --quiet --clear --python $(BIN)/python .venv-stock
	@$(TIMED) "install stock MLflow" $(INSTALL) --python .venv-stock/bin/python mlflow scikit-learn boto3 psycopg2-binary
	@touch $@
