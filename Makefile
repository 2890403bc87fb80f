# make demo   play a real scene to the node and judge what comes back (results in demo_out/)
# make test   run the tests
# make soak   ten minutes of the node under load: its memory, and what becomes of every frame
# make setup  only make the environment, .venv; demo and test do it when it is missing
# make clean  remove results and build files; .venv stays

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/.ready
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check
CHOSEN := -c constraints.txt

# ROS 2 Kilted from PyPI, for machines without a sourced ROS.
ROS_WHEELS := ros-kilted-rclpy ros-kilted-rmw-fastrtps-cpp ros-kilted-sensor-msgs \
              ros-kilted-std-srvs ros-kilted-diagnostic-msgs ros-kilted-stereo-msgs \
              ros-lifecycle-msgs

# The tests build the package as a colcon workspace does.
COLCON := colcon-core colcon-ros colcon-python-setup-py colcon-test-result colcon-bash

# Without an NVIDIA GPU the build of PyTorch's own index will do; it is a tenth of the size.
CPU_INDEX := https://download.pytorch.org/whl/cpu
CPU_TORCH  = $(shell ! command -v nvidia-smi >/dev/null \
               && curl -fsI -m 10 $(CPU_INDEX)/torch/ >/dev/null 2>&1 \
               && echo --extra-index-url $(CPU_INDEX))

CHECK_PYTHON := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))

.PHONY: help setup demo test soak clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(READY)

$(READY): constraints.txt setup.py
	@$(PYTHON) -c '$(CHECK_PYTHON)' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1):" \
	    "expected Python 3.10 to 3.13; name one, e.g. make PYTHON=python3.12"; exit 1; }
	@if $(PYTHON) -c 'import rclpy' 2>/dev/null; then \
	    echo "set-up: with the sourced ROS $$ROS_DISTRO"; \
	    $(PYTHON) -m venv --system-site-packages $(VENV); \
	elif [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	    echo "set-up: with ROS 2 Kilted from PyPI"; \
	    $(PYTHON) -m venv $(VENV) && $(PIP) install -q $(CHOSEN) $(ROS_WHEELS); \
	else \
	    echo "no ROS 2 here, and PyPI has it for x86_64 Linux only: source an installed ROS 2"; \
	    exit 1; \
	fi
	@echo "set-up: PyTorch, the largest part"
	@$(PIP) install $(CHOSEN) $(CPU_TORCH) torch
	@echo "set-up: the other packages"
	@$(PIP) install -q $(CHOSEN) $(COLCON) -e '.[test,train]'
	@# Beside the others: where it can be imported, every start takes a second longer.
	@$(PIP) install -q $(CHOSEN) --no-deps --target $(VENV)/quantize torchao
	@touch $@

demo: $(READY)
	@$(VENV)/bin/sdim demo --out demo_out

# One process more than two cores: tests of the node wait about as long as they compute.
test: $(READY)
	@$(VENV)/bin/python -m pytest -q -ra -n 3 --dist loadfile --no-loadscope-reorder \
	    --durations=25 test

soak: $(READY)
	@$(VENV)/bin/python test/soak.py

clean:
	rm -rf demo_out build install log dist *.egg-info .pytest_cache
