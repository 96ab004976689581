# Two commands do everything on a fresh machine: make demo, make test.
# A CPU-only torch: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
DEMO_FOLDER ?= demo

# Threads that sleep instead of spinning: on few cores many times faster.
export OMP_WAIT_POLICY := PASSIVE
export PYTHONUNBUFFERED := 1

.PHONY: help demo test lint benchmark clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' Makefile | sed 's/:.*## / - /'

$(VENV)/installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing (a few minutes on the first run) ..."
ifneq ($(TORCH_INDEX),)
	$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) \
		torch==2.11.0 torchaudio==2.11.0
endif
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: $(VENV)/installed ## build a corpus, train, evaluate, export, search
	$(BIN)/python recipes/SyntheticStyles/train.py hparams/compact.yaml \
		--data_folder $(DEMO_FOLDER)/corpus \
		--output_folder $(DEMO_FOLDER)/run
	$(BIN)/python recipes/SyntheticStyles/search.py \
		$(DEMO_FOLDER)/run/retriever $(DEMO_FOLDER)/corpus

test: $(VENV)/installed ## all checks and tests, with coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict .
	$(BIN)/codespell
	$(BIN)/python -m pytest --doctest-modules --durations=10 \
		--cov --cov-report=term:skip-covered

benchmark: $(VENV)/installed ## figures of docs/benchmarks.md
	$(BIN)/python benchmarks/run.py

clean: ## remove what was made, not what was trained
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .coverage
