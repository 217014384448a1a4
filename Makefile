# Needs Python 3.10 or newer and make; everything else goes into .venv.
# make demo PYTHON=python3.12                                   another interpreter
# TORCH_INDEX=https://download.pytorch.org/whl/cpu make demo    the CPU build of torch on Linux (no CUDA libraries)

CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
PYTHON ?= $(shell for p in $(CANDIDATES); do "$$p" -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
TORCH_INDEX ?=
TORCH_FROM := $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX))
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install -q --no-compile -c constraints.txt
UV := $(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt
WANTED := -e ".[all,dev,docs]" -e research
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What is imported is compiled then, once: without this every process would compile torch again.
unexport PYTHONDONTWRITEBYTECODE
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo lm-demo paper test tests check format docs kernels clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP)  ## train three small models and write demo/index.html
	$(BIN)/statemix demo

lm-demo: $(STAMP)  ## train a small language model on Python's own text and let it write (three to six minutes on two cores)
	$(BIN)/statemix text prepare --source stdlib --validation 0.05 --out lm-demo/pack
	$(BIN)/statemix lm train --preset tiny data.pack=lm-demo/pack --out lm-demo/run
	$(BIN)/statemix lm eval lm-demo/run
	$(BIN)/statemix lm generate lm-demo/run --prompt "def "

paper: $(STAMP)  ## a small figure 3 from runs to tables, figure and page in paper/ (a minute or two on two cores)
	$(BIN)/statemix-research run fig3 --preset small --store paper/runs
	$(BIN)/statemix-research paper fig3 --preset small --store paper/runs --out paper

test: $(STAMP)  ## everything that is checked: style, types, imports, the site and the tests
	@$(MAKE) --no-print-directory -j 2 check tests

tests: $(STAMP)    # the site is built by one of them
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q --durations=25

check: $(STAMP)  ## style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## put the code into its standard form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP)  ## build the site into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

kernels: $(STAMP)  ## compile every GPU kernel for every target, no GPU needed, and record what it takes
	$(BIN)/python -m tools.aot_check --all --jobs $(WORKERS) --write benchmarks/records/kernel_resources.json

clean:  ## remove the environment and every cache (runs, demo/ and lm-demo/ stay)
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first and alone, from the pins: no later step may bring another one. uv resolves the rest in a tenth of pip's
# time; pip installs it where uv cannot (it reads no settings of pip).
$(STAMP): pyproject.toml research/pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python found, expected Python 3.10 or newer (make PYTHON=/path/to/python)" >&2; exit 1; }
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' || { echo "error: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), expected Python 3.10 or newer" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(PIP) $(TORCH_FROM) torch
	$(PIP) uv && $(UV) $(WANTED) || $(PIP) $(WANTED)
	@touch $@
