# Sets up a virtual environment beside the code and runs things in it. It asks for python3 (3.11 or
# newer) with its venv module, make and git; every target sets up what it needs, once.
#
#   make demo     learn handwritten digits within a RAM budget     make demo ARGS="--ram 48K"
#   make test     run the tests                                    make test ARGS="-k arena"
#   make check    format, lint, types
#   make setup    set up for all three, run nothing
#
# Another interpreter: make test PYTHON=python3.13 VENV=.venv-3.13
# Other versions:      make test PINS="numpy==1.24.*" VENV=.venv-numpy124

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PINS ?=

BIN := $(abspath $(VENV))/bin
# An older wheel rather than the newest source: nobody wants to compile Rust on a board.
INSTALL = $(BIN)/python -m pip --disable-pip-version-check --quiet install --prefer-binary
pins = $(foreach pin,$(PINS),'$(pin)')
BITS = $(shell $(PYTHON) -c 'import sys; print(64 if sys.maxsize > 2**32 else 32)')

extras_demo := progress
extras_test := test
extras_check := dev

# On 32-bit machines (a Raspberry Pi Zero: ARMv6) there is no Numba, and building NumPy takes hours:
# the environment may use the distribution's NumPy (python3-numpy) when that is installed. The
# kernel of a 32-bit Raspberry Pi OS often is a 64-bit one, so that the machine calls itself aarch64
# and setup.cfg's marker would ask for Numba: there the dependencies are named here instead.
board_demo := 'numpy>=1.24' tqdm
board_test := $(board_demo) pytest pytest-xdist hypothesis 'setuptools>=70.1'
board_check := ruff mypy

.PHONY: setup demo test check clean

demo: $(VENV)/.for-demo
	$(BIN)/tinytrain demo $(ARGS)

test: $(VENV)/.for-test
	$(BIN)/python -m pytest $(ARGS)

# mypy reads the tree as it is installed, where kernels/ is tinytrain.kernels; build/ is emptied
# first, as setuptools would install a module from there that is gone from the checkout.
check: $(VENV)/.for-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build
	$(INSTALL) --no-deps --target build/installed .
	cd build/installed && $(BIN)/mypy --config-file ../../setup.cfg --cache-dir ../../.mypy_cache -p tinytrain

setup: $(VENV)/.for-demo $(VENV)/.for-test $(VENV)/.for-check

clean:
	rm -rf build dist tinytrain.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tinytrain needs Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 1; }
	@site=; \
	if [ "$(BITS)" = 32 ] && $(PYTHON) -c 'import numpy' 2>/dev/null; then \
	  site=--system-site-packages; echo "using this system's NumPy"; fi; \
	$(PYTHON) -m venv $$site $(VENV) || { \
	  echo "no virtual environment: on Debian and Raspberry Pi OS, apt install python3-venv" >&2; \
	  exit 1; }
	@touch $@

$(VENV)/.for-%: $(VENV)/.made setup.cfg pyproject.toml
	@echo "setting up $(VENV) for $*"
	@if [ "$(BITS)" = 32 ]; then \
	  $(INSTALL) --no-deps -e . && \
	  $(INSTALL) --no-warn-conflicts --only-binary numpy $(pins) $(board_$*) || { \
	    echo "for NumPy: apt install python3-numpy, remove $(VENV), try again" >&2; exit 1; }; \
	else \
	  $(INSTALL) $(pins) -e '.[$(extras_$*)]'; \
	fi
	@$(BIN)/python -W ignore -c 'import numpy' || { \
	  echo "NumPy does not load: apt install python3-numpy, remove $(VENV), try again" >&2; exit 1; }
	@touch $@
