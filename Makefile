# `make demo` and `make test` need nothing but Python 3.11 or newer: they make the environment they run in.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow check docs bench install clean

demo: $(STAMP)
	@$(BIN)/weighin run

test: $(STAMP)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(STAMP)
	$(BIN)/python -m pytest benchmarks --benchmark-only --override-ini addopts=-q

docs: $(STAMP)
	@mkdir -p .weighin
	$(BIN)/weighin setup openvino onnx gguf
	for spec in lifecycle openvino-sweep onnx-sweep gguf-sweep; do $(BIN)/weighin run $$spec --store .weighin/docs.duckdb || exit; done
	$(BIN)/python -m weighin.harness.catalogue .weighin/docs.duckdb > docs/stages.md

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes, once) …"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .weighin weighin.duckdb weighin.duckdb.wal
