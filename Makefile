# The distribution that the shell has sourced, if there is one.
ROS ?= $(or $(ROS_DISTRO),jazzy)
VENV ?= $(if $(filter jazzy,$(ROS)),.venv,.venv-$(ROS))
PYTHON ?= python3
PY := $(VENV)/bin/python
OUT ?= out

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup test test-long test-families test-training test-cuda test-fleet gpu-check lint bench bench-node bench-toolchain demo train release-check clean

# Each process that speaks DDS stays on this machine and, with a domain of its
# own, out of the way of others that run at the same time. Domains above 100 can
# collide with the ports that the system hands out.
DDS = ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$$(shuf -i 1-100 -n 1)

# One process for each core, up to four; ARGS="-n 0" runs all tests in one. A file's tests stay together, as they share
# nodes. Long files come first: the folders are in that order. Bytecode is kept, else each process compiles all tests.
PYTEST = $(DDS) PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -ra -n auto --dist loadfile --no-loadscope-reorder

help: ## Show this text
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo "Variables: ROS=jazzy|kilted ($(ROS)), VENV=folder ($(VENV)), PYTHON=interpreter for setup ($(PYTHON)),"
	@echo "           ARGS=more arguments for test, bench and demo; demo: MODEL=file (engines/street-nano.onnx),"
	@echo "           INPUT=images, videos or a street world's bag in place of the drive, OUT=folder ($(OUT))"

setup: ## Make or update the environment in VENV
	@$(PYTHON) -m tools.set_up --venv $(VENV) --ros $(ROS) --python $(PYTHON)

test: setup ## Run the tests; what is skipped says why
	@$(PYTEST) $(ARGS)

test-long: setup ## Run the tests that take minutes: fuzzing, floods, many examples of each property
	@$(PYTEST) -m "long or hypothesis" --hypothesis-profile long $(ARGS)

test-families: ## Compare with the model families' own exporters and post-processing, in .venv-families (2 GB or more)
	@$(PYTHON) -m tools.side families --venv .venv-families --python $(PYTHON)
	@# Without test/conftest.py, which needs the product's own test environment.
	@.venv-families/bin/python -m pytest -ra --confcutdir=test/families test/families $(ARGS)

test-training: ## Test the training code, in .venv-training
	@$(PYTHON) -m tools.side training --venv .venv-training --python $(PYTHON)
	@.venv-training/bin/python -m pytest -ra --confcutdir=test/training test/training $(ARGS)

test-cuda: ## Test what talks to CUDA, test/gpu too, on an emulated driver, in .venv-cuda
	@$(PYTHON) -m tools.side cuda --venv .venv-cuda --python $(PYTHON)
	@EMULATED_CUDA=1 .venv-cuda/bin/python -m pytest -ra test/cuda test/gpu $(ARGS)

test-fleet: ## Test many bags at once on Ray, in .venv-fleet
	@$(PYTHON) -m tools.side fleet --venv .venv-fleet --python $(PYTHON)
	@.venv-fleet/bin/python -m pytest -ra test/unit/offboard/fleet $(ARGS)

gpu-check: setup ## On a machine with an NVIDIA GPU: test and measure there; writes docs/gpu-results.md
	@$(PY) -m pytest -ra test/gpu $(ARGS)
	@$(PY) -m bench gpu --write docs/gpu-results.md

lint: setup ## Check style (ruff) and types (mypy, strict)
	@$(PY) -m ruff check .
	@$(PY) -m mypy

bench: setup ## Measure; prints tables, passes no judgement
	@$(DDS) $(PY) -m bench $(ARGS)

bench-node: setup ## Measure six cameras through the node, and through one as usually written (ARGS="--minutes 10": memory, too)
	@$(DDS) $(PY) -m bench vehicle $(ARGS)

bench-toolchain: setup ## Measure time and memory of prepare, quantize and build; takes minutes
	@$(PY) -m bench toolchain $(ARGS)

demo: setup ## A drive through the street world, camera to node to viewer, against its ground truth; results in OUT
	@$(DDS) $(PY) -m demo $(if $(MODEL),--model "$(MODEL)") $(if $(INPUT),--input $(INPUT)) --out "$(OUT)" $(ARGS)

train: ## Train the default model, or fine-tune it: DATA=instances.json IMAGES=folder INIT=weights.safetensors
	@$(PYTHON) -m tools.side training --venv .venv-training --python $(PYTHON)
	@.venv-training/bin/python -m training $(if $(DATA),--data "$(DATA)") $(if $(IMAGES),--images "$(IMAGES)") \
		$(if $(VALIDATION),--validation "$(VALIDATION)") $(if $(INIT),--init "$(INIT)") $(ARGS)

release-check: ## Build sdist and wheel, install in an empty environment without ROS, and segment an image there
	@$(PYTHON) -m tools.release

clean: ## Remove caches, builds and results; the environments stay
	rm -rf build install log out seg_perception.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
