# Every target sets up what it needs, once: a machine with Python 3.11, pip and make is enough.
PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
TORCH ?= torch==2.13.0
TRITON ?= triton==3.7.1
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

.PHONY: help
help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- set-up: a stamp for each set of packages, renewed when pyproject.toml changes ---

# Some systems ship venv without its pip; then the pip outside installs one inside.
$(BIN)/python:
	$(PYTHON) -m venv --clear $(VENV) || { \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } || { rm -rf $(VENV); exit 1; }

$(VENV)/.cpu: pyproject.toml | $(BIN)/python
	@echo 'Installing the runtimes into $(VENV): a minute or two, once.'
	@$(PIP) install --quiet --editable '.[cpu,demo]'
	@touch $@

# One call of pip for all of it. Bytecode is made afterwards, and only of what runs here: half of it is tests of others.
$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo 'Installing runtimes, PyTorch and the tools into $(VENV): three minutes, once.'
	@$(PIP) install --quiet --no-compile '$(TORCH)' --editable '.[cpu,demo,torch,dev]'
	@$(BIN)/python -m compileall -qq -x '/(tests?|moto|cfnlint|pip)/' $(VENV)/lib || true  # some is for other Pythons
	@touch $(VENV)/.cpu $@

$(VENV)/.zoo: pyproject.toml $(VENV)/.dev
	@echo 'Installing what the models are made with into $(VENV), once.'
	@$(PIP) install --quiet '$(TORCH)' --editable '.[cpu,zoo,dev]'
	@touch $@

# --- the two commands ---

.PHONY: demo test
demo: $(VENV)/.cpu  ## build, publish, serve and query a real model
	$(BIN)/tailorbird demo

# Three at a time, for many wait; then, one by one, those that compare times. What failed beside others is tried again by
# itself, once: some watch deadlines of milliseconds. Status 5: none of ARGS is of that kind.
QUICK := not heavy and not gpu
PYTEST := $(BIN)/python -m pytest
test: $(VENV)/.dev  ## run the tests (ARGS= goes to pytest)
	$(PYTEST) --numprocesses 3 --dist loadfile -m '$(QUICK) and not alone' $(ARGS) || case $$? in 5) ;; \
	  1) $(PYTEST) --last-failed --last-failed-no-failures none -m '$(QUICK) and not alone' $(ARGS) ;; *) exit 1 ;; esac
	$(PYTEST) -m '$(QUICK) and alone' $(ARGS) || [ $$? -eq 5 ]

# Apart from the rest, for its interpreter is all or nothing in a process, and torch for CPUs does not expect it.
$(VENV)/.triton: pyproject.toml $(VENV)/.dev
	@echo 'Fetching Triton, whose interpreter runs our CUDA kernels without a GPU, once.'
	@$(PIP) install --quiet --no-deps --no-compile --target $(VENV)/triton '$(TRITON)' || echo 'none for this machine'
	@touch $@

.PHONY: kernels
kernels: $(VENV)/.triton  ## our CUDA kernels, in Triton's interpreter on the CPU
	PYTHONPATH=$(VENV)/triton TRITON_INTERPRET=1 $(BIN)/python -m pytest --numprocesses 2 \
	  tests/unit/backends/inductor/kernels/test_kernels.py $(ARGS) || [ $$? -eq 5 ]

# --- the checks ---

.PHONY: check lint types floors sizes conformance kill
check: lint types floors sizes test kernels  ## all that CI checks

lint: $(VENV)/.dev  ## formatting and ruff's rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

floors: $(VENV)/.dev  ## imports go down only
	$(BIN)/lint-imports

sizes: $(VENV)/.dev  ## lengths of modules and functions
	$(BIN)/python -m pytest --quiet tests/project/test_sizes.py

conformance: $(VENV)/.dev  ## the protocol's checks against us and the real Triton
	$(BIN)/python -m tests.conformance docs/conformance.md

kill: $(VENV)/.dev  ## the heavy tests: kill loops, full disks
	$(BIN)/python -m pytest -m heavy $(ARGS)

# --- the rest ---

.PHONY: format proto zoo bench accuracy tensorrt clean
format: $(VENV)/.dev  ## format the code and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(VENV)/.dev  ## compile the messages of the protocol over gRPC
	cd src/tailorbird/service/rpc && $(CURDIR)/$(BIN)/python -m grpc_tools.protoc --proto_path=. \
	  --descriptor_set_out=protocol.binpb open_inference.proto health.proto

zoo: $(VENV)/.zoo  ## fetch the models of the benchmarks into the cache
	$(BIN)/python -m bench.zoo

bench: $(VENV)/.zoo  ## our engines against what people would pick instead
	$(BIN)/python -m bench.engines $(ARGS)

accuracy: $(VENV)/.zoo  ## score and speed with labels: FP32, naive INT8, ours
	$(BIN)/python -m bench.accuracy $(ARGS)

tensorrt: $(VENV)/.zoo  ## TensorRT-RTX builds the whole zoo, without a GPU
	$(BIN)/python -m bench.rtx $(ARGS)

.PHONY: serving-bench
serving-bench: $(VENV)/.zoo  ## our server against Triton, LitServe, MLServer, BentoML and Flask
	$(BIN)/python -m bench.serving prepare $(ARGS)
	$(BIN)/python -m bench.serving --page docs/serving-benchmarks.md $(ARGS)

.PHONY: gpu-test gpu-bench
gpu-test: $(VENV)/.dev  ## on an NVIDIA GPU: the tests that need one, and our kernels on it instead of in an interpreter
	$(BIN)/python -m pytest -m gpu $(ARGS)
	$(BIN)/python -m pytest tests/unit/backends/inductor/kernels $(ARGS)

gpu-bench: $(VENV)/.zoo  ## on an NVIDIA GPU: our kernels against PyTorch's ways (ARGS= goes to bench.gpu)
	$(BIN)/python -m bench.gpu $(ARGS)

$(VENV)/.fuzz: pyproject.toml $(VENV)/.dev
	@echo 'Installing what leads the fuzzing by coverage into $(VENV), once.'
	@$(PIP) install --quiet '$(TORCH)' --editable '.[cpu,torch,dev,fuzz]' || echo 'none for this Python: make fuzz does without'
	@touch $@

.PHONY: fuzz stress memory
fuzz: $(VENV)/.fuzz  ## a million broken requests at every door of the server
	$(BIN)/python -m tests.fuzz $(ARGS)

stress: $(VENV)/.dev  ## minutes of marked rows under kills and swaps: is every answer its own?
	$(BIN)/python -m tests.stress $(ARGS)

memory: $(VENV)/.dev  ## half an hour of mixed traffic and swaps: is memory flat?
	$(BIN)/python -m tests.stress.memory $(ARGS)

clean:  ## remove the environment and what builds left here
	rm -rf $(VENV) build dist demo-output .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
