# `make` lists what there is. All of it runs in .venv, which is made here and nowhere else.

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
EXTRAS := onnxruntime,openvino,tensorrt-rtx,vision,plot,dev
# The first of these that runs, is new enough and can make environments is taken. Or name one: make PYTHONS=/path/to/python
PYTHONS ?= python3.13 python3.12 python3.11 python3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install lint types test test-slow test-gpu gpu demo demo-photos coverage fidelity budgets solvers engines memory memory-budgets fusion versus fisher clean clean-all

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

install: $(INSTALLED) ## make .venv and install latprune with all that the demo and the tests need

$(INSTALLED): setup.py
	@python=''; \
	for name in $(PYTHONS); do \
		if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$name"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "latprune needs Python 3.11 or newer with its venv module; tried: $(PYTHONS)." >&2; \
		for name in $(PYTHONS); do command -v "$$name" >/dev/null && "$$name" --version 2>/dev/null | sed "s|^|  $$name is |" >&2; done; \
		echo "Install one (on Debian or Ubuntu: python3 and python3-venv), or name it: make PYTHONS=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	if ! $(PYTHON) -m pip --version >/dev/null 2>&1; then \
		echo "Making $(VENV) with $$("$$python" --version) …"; \
		"$$python" -m venv --clear $(VENV); \
	fi
	@echo "Installing latprune[$(EXTRAS)]: about 6 GB with PyTorch, a minute or more …"
	$(PYTHON) -m pip install --disable-pip-version-check -e ".[$(EXTRAS)]"
	@touch $@

lint: $(INSTALLED) ## ruff
	$(PYTHON) -m ruff check .

types: $(INSTALLED) ## mypy --strict
	$(PYTHON) -m mypy --strict lut profiler pruner

test: lint types ## ruff, mypy --strict and the tests, without the slow ones and those that need a GPU
	$(PYTHON) -m pytest -q --durations=10 -m "not slow and not gpu"
	@echo "Left out: tests that need a GPU (make test-gpu) and slow ones (make test-slow)."

test-slow: $(INSTALLED) ## the tests that take minutes
	$(PYTHON) -m pytest -q --durations=10 -m "slow and not gpu"

test-gpu: $(INSTALLED) ## the tests that need an NVIDIA GPU
	$(PYTHON) -m pytest -q --durations=10 -m gpu --every-gpu-test

# More for it: make gpu GPU="--plan", "--report", "--again"
gpu: $(INSTALLED) ## all that needs an NVIDIA GPU: tests, trtexec's figure, tables, budgets, engines: docs/gpu-<device>.md; resumable
	$(PYTHON) -m benchmarks.gpu $(GPU)

demo: $(INSTALLED) ## the main job on handwritten digits: train, profile, prune to half the time, export, check
	$(PYTHON) tasks/run.py tasks/digits.py --budget 50% --out runs/digits

demo-photos: $(INSTALLED) ## the same on torchvision's MobileNetV2 and two photographs
	$(PYTHON) tasks/run.py tasks/photos_mobilenet_v2.py --budget 50% --out runs/photos --epochs 2 --no-accuracy-check

# More for it: make coverage COVERAGE="--jobs 2", "--only resnet50 detection", "--again all", "--report"
coverage: $(INSTALLED) ## every network of torchvision, beside Torch-Pruning: docs/coverage.md; resumable
	@$(PYTHON) -c 'import torch_pruning' 2>/dev/null || $(PYTHON) -m pip install --disable-pip-version-check -e ".[benchmarks]"
	$(PYTHON) -m benchmarks.coverage $(COVERAGE)

# More for it: make fidelity FIDELITY="--only resnet18 vit", "--runtimes openvino", "--again all", "--report"
fidelity: $(INSTALLED) ## predicted and measured latencies of twelve networks on two runtimes: docs/fidelity.md; resumable
	$(PYTHON) -m benchmarks.fidelity $(FIDELITY)

# More for it: make budgets BUDGETS="--only resnet50 --runtimes openvino", "--again", "--report"
budgets: $(INSTALLED) ## whether plans keep their budgets when another process measures them: docs/budgets.md; resumable
	$(PYTHON) -m benchmarks.budgets $(BUDGETS)

solvers: $(INSTALLED) ## what each solver loses on the tables of make fidelity: docs/solvers.md
	$(PYTHON) -m benchmarks.solvers $(SOLVERS)

# More for it: make memory MEMORY="--only ResNet-18 EDSR", "--again"
memory: $(INSTALLED) ## the memory of twelve networks as TensorRT for RTX counts it: docs/memory.md; resumable
	$(PYTHON) -m benchmarks.memory $(MEMORY)

# More for it: make fusion FUSION="--only ResNet-18 EDSR --precisions fp32", "--again", "--report"
fusion: $(INSTALLED) ## the kernels that TensorRT for RTX makes of twelve networks, beside nodes and units: docs/fusion.md; resumable
	$(PYTHON) -m benchmarks.fusion $(FUSION)

# More for it: make memory-budgets MEMORY_BUDGETS="--only EDSR --precisions int8", "--again", "--report"
memory-budgets: $(INSTALLED) ## six networks pruned to memory budgets, judged by the compiler: docs/memory_budgets.md; resumable
	$(PYTHON) -m benchmarks.memory_budgets $(MEMORY_BUDGETS)

# More for it: make engines ENGINES="--only EDSR", "--again", "--report"
engines: $(INSTALLED) ## engines of six pruned networks for five capabilities in three precisions: docs/engines.md; resumable
	$(PYTHON) -m benchmarks.engines $(ENGINES)

# More for it: make versus VERSUS="--only resnet20 --budgets 75 50 --seeds 0", "--runtimes onnxruntime", "--full", "--report"
versus: $(INSTALLED) ## pruned beside what others do: accuracy against measured latency, docs/versus.md; resumable
	@$(PYTHON) -c 'import torch_pruning' 2>/dev/null || $(PYTHON) -m pip install --disable-pip-version-check -e ".[benchmarks]"
	$(PYTHON) -m benchmarks.versus $(VERSUS)

# More for it: make fisher FISHER="--only MobileNetV2", "--quick"
fisher: $(INSTALLED) ## what Fisher scores cost beside training, in time and memory: docs/fisher.md
	$(PYTHON) -m benchmarks.fisher_overhead $(FISHER)

clean: ## remove what building and testing leave behind
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

clean-all: clean ## the same, and .venv, the runs and the trained weights
	rm -rf $(VENV) runs tasks/runs
