PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo lint quick test clean

install: .venv/installed

# Made anew when the dependencies change; nothing but Python itself is expected on the machine.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# Rendered people, so no data is needed; a second call goes on where the first was stopped.
demo: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/runs/demo/compiled
demo: install
	$(BIN)/python -m san_jax.experiments.chain --config=configs/chain.py:small --workdir=runs/demo

lint: install
	$(BIN)/ruff check .

quick: lint
	$(BIN)/python -m pytest -m "not slow"

test: lint
	$(BIN)/python -m pytest

clean:
	rm -rf .venv build *.egg-info
