# `make demo` and `make test` set up all they need in .venv; what is already there is not done again.
PYTHON ?= python3

# Linux gets the CPU build of torch, which PyTorch serves from an index of its own; macOS has only one build. Where no
# index that pip knows has that build, the default one is taken, and make says so. For a GPU: `make TORCH_BUILD= ...`,
# or the build that fits your driver, such as TORCH_BUILD=+cu130 with TORCH_INDEX=https://download.pytorch.org/whl/cu130.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_BUILD ?= $(if $(filter Linux,$(shell uname -s)),+cpu)
VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH := $(VERSION)$(TORCH_BUILD)
NEEDS := $(shell sed -n '/^dependencies/,/^]/s/^ *\("[^"]*"\),/\1/p' pyproject.toml | grep -v torch)

BIN := .venv/bin
STAMP := .venv/.installed
TOOLS := .venv/.tools
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# One thread, so that numbers repeat; offline, because nothing here needs a model from elsewhere.
export OMP_NUM_THREADS := 1
export HF_HUB_OFFLINE := 1
# Python compiles what it imports, the first time: a fraction of what is installed.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test setup venv clean

demo: $(STAMP)
	@echo "demo: a tiny model learns to learn, measured before and after"
	@$(BIN)/codots demo recipes/demo.yaml

test: $(TOOLS)
	@echo "ruff: style and format"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo "mypy: types, strictly"
	@$(BIN)/mypy
	@echo "import-linter: a room imports only from rooms below it"
	@$(BIN)/lint-imports
	@echo "pytest: the promises"
	@$(BIN)/pytest --numprocesses 2 --dist worksteal

setup: $(TOOLS)

$(STAMP): pyproject.toml constraints.txt
	@$(PIP) --version > /dev/null 2>&1 || $(MAKE) --no-print-directory venv
	@$(MAKE) --no-print-directory --jobs=2 .venv/.torch .venv/.rest
	@$(PIP) install --no-compile --no-deps --no-build-isolation --editable .
	@touch $@

# With a recent pip where one can be had: it reads an index in a third of the time that an old one takes.
venv:
	@echo "setup: a virtual environment in .venv"
	@$(PYTHON) -m venv --without-pip --clear .venv
	@$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check --quiet install --no-compile pip==26.3 \
		2> /dev/null || $(BIN)/python -m ensurepip > /dev/null

# Two halves that have no package in common, so that they may be installed at once.
.venv/.torch: constraints.txt
	@echo "setup: torch $(TORCH)"
	@$(PIP) install --no-compile --no-deps --retries 1 --timeout 15 --extra-index-url "$(TORCH_INDEX)" "torch==$(TORCH)" || { \
		echo "setup: torch $(TORCH) is out of reach; taking $(VERSION) as the default index has it"; \
		$(PIP) install --no-compile --no-deps "torch==$(VERSION)"; }
	@touch $@

.venv/.rest: pyproject.toml constraints.txt
	@echo "setup: what codots, its build and torch need, at the versions of constraints.txt"
	@$(PIP) install --no-compile --constraint constraints.txt $(NEEDS) networkx sympy hatchling editables
	@touch $@

$(TOOLS): $(STAMP)
	@echo "setup: what the tests need besides"
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	@echo "clean: .venv and every cache; runs stay"
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
