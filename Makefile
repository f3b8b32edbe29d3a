# Two commands are enough to begin: `make demo` and `make test`. Each sets up all it needs in .venv.

.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin

# make demo CORPUS=… TEXT=… DOCUMENTS=… FRESH=1
OWN_DOCUMENTS = $(if $(CORPUS),--corpus '$(CORPUS)') $(if $(TEXT),--text-column '$(TEXT)') \
	$(if $(DOCUMENTS),--documents '$(DOCUMENTS)')

SUDO = $(if $(filter-out 0,$(shell id -u)),sudo)

.PHONY: help demo rehearsal run ui docs browser test test-full bench-teachers bench-checks bench-data bench-train bench-merge bench-hub bench-look bench-dagster bench-scale readers families faults pictures check lock versions format clean

help: ## what can be made
	@echo "make TARGET, of which demo and test are enough to begin:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / && $$1 != "help" {printf "  %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: .venv/installed ## the whole line on the demo study, or on your own articles: CORPUS=file, TEXT=column, DOCUMENTS=n
	@$(BIN)/nift demo $(OWN_DOCUMENTS) $(if $(filter-out 0,$(FRESH)),--fresh)

# make rehearsal STUDY=today SCALE=100 FRESH=1
rehearsal: export NIFT_STUDY ?= $(or $(STUDY),paper)
rehearsal: export NIFT_SCALE ?= $(or $(SCALE),1000)
rehearsal: .venv/installed ## the paper's whole study at a thousandth of its size, with tiny models and nobody paid
	@$(BIN)/nift demo $(if $(filter-out 0,$(FRESH)),--fresh)
	@$(BIN)/nift coverage

# make run TABLES=training_sets; TABLES=filtered_completions PARTITION=echo; TABLES=table_1 ONLY=1; with SCORES=1 then the score tables; nothing: all that is missing
run: .venv/installed ## some tables and what they are made from, where that is missing or out of date
	@$(BIN)/nift run $(TABLES) $(if $(PARTITION),--partition $(PARTITION)) $(if $(filter-out 0,$(ONLY)),--only) \
		$(if $(filter-out 0,$(SCORES)),--scores) $(OWN_DOCUMENTS)

ui: .venv/installed ## Dagster's UI of the same study, on this machine only
	@$(BIN)/nift ui $(OWN_DOCUMENTS) $(if $(PORT),--port $(PORT))

docs: .venv/installed ## every table's contract with its last results, as one page
	@$(BIN)/nift docs $(OWN_DOCUMENTS)

# One test: .venv/bin/python -m pytest tests/FILE.py::NAME, which runs in one process.
WHOLE = -n auto --dist loadfile --no-loadscope-reorder --durations=10

# The tests start hundreds of processes, each of which would compile our code anew.
test test-full: export PYTHONDONTWRITEBYTECODE =

test: .venv/installed ## every quick test, on all cores
	@$(BIN)/python -m pytest $(WHOLE)

test-full: .venv/installed ## every test
	@$(BIN)/python -m pytest -m 'slow or not slow' $(WHOLE)

bench-teachers: .venv/installed ## what asking a teacher costs beside the openai SDK: requests/s, CPU, memory
	@$(BIN)/python -m tests.ledger.bench

bench-checks: .venv/installed ## how long the checks of 80,000 rows with whole texts take, table by table
	@$(BIN)/python -m tests.expectations.bench

bench-data: .venv/installed ## what sampling and cutting cost, beside a plain scan and datasets.map; takes about ten minutes
	@$(BIN)/python -m tests.corpus.bench

# make bench-train PEERS=1 SHAPE=llama-3-8b ROUNDS=1
bench-train: .venv/installed ## what training costs beside transformers' Trainer; PEERS=1 TRL and LLaMA-Factory too
	@$(BIN)/python -m tests.training.train.bench $(if $(filter-out 0,$(PEERS)),--peers) \
		$(if $(SHAPE),--shape $(SHAPE)) $(if $(ROUNDS),--rounds $(ROUNDS))

families: .venv/installed ## the guide's table of the model families that are trained, merged into and asked here
	@$(BIN)/python -m tests.training.families

faults: .venv/installed ## the guide's table of what goes wrong, and which tests prove what is promised then
	@$(BIN)/python -m tests.promises

bench-merge: .venv/installed ## what a merge costs beside cp and peft: seconds, CPU, memory; needs 10 GB of disk
	@$(BIN)/python -m tests.training.merge.bench

bench-hub: .venv/installed ## what publishing 80,000 pairs costs, to a Hub on this machine; needs 3 GB of disk
	@$(BIN)/python -m tests.hub.bench

bench-look: .venv/installed ## what reading 300,000 rows of 5 kB costs: the first page, a search, memory; needs 1 GB of disk
	@$(BIN)/python -m tests.pages.bench_look

readers: .venv/installed ## what LLaMA-Factory, TRL and axolotl read of a training set's files; makes an environment for each
	@$(BIN)/python -m tests.training.train.readers

bench-dagster: .venv/installed ## what Dagster costs: loading, a step, a back-fill of eight teachers; takes some minutes
	@$(BIN)/python -m tests.ui.bench

# make bench-scale SIZES='10000 1000000 10000000' DATABASES=sqlite PAIRS='80000 300000'
bench-scale: .venv/installed ## what each step of 80,000 pairs costs, and the ledger beside 10,000 and a million questions; 6 GB of disk
	@$(BIN)/python -m tests.scale.steps --pairs $(or $(PAIRS),80000)
	@$(BIN)/python -m tests.scale $(if $(SIZES),--sizes $(SIZES)) $(if $(DATABASES),--databases $(DATABASES))

pictures: .venv/installed browser ## the README's pictures of the UI, made anew
	@$(BIN)/python -m tests.ui.pictures

browser: ## Chromium for the tests of the UI, from Debian's packages where there is none yet
	@for name in chromium-headless-shell chromium chromium-browser google-chrome; do \
		command -v $$name >/dev/null && exit 0; \
	done; \
	command -v apt-get >/dev/null || { echo "Install Chromium as your system does"; exit 1; }; \
	$(SUDO) apt-get update -qq && { \
		$(SUDO) apt-get install -y -qq --no-install-recommends chromium-headless-shell || \
		$(SUDO) apt-get install -y -qq --no-install-recommends chromium; }

check: .venv/installed ## format, lint, types and import direction
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --num-workers auto
	@$(BIN)/lint-imports

# uv is the one tool that writes down the hashes of all files of a version, for every platform.
lock: constraints.txt ## requirements.lock made anew: the hashes of what constraints.txt names
	@$(PYTHON) -m venv .venv/lock
	@.venv/lock/bin/pip install --quiet uv
	@{ sed -n '/^#/p' requirements.lock; grep -v '^torch==' constraints.txt | .venv/lock/bin/uv pip compile --quiet \
		--no-deps --no-header --no-annotate --universal --python-version 3.11 --generate-hashes -; } > .venv/lock/lock
	@mv .venv/lock/lock requirements.lock

versions: .venv/installed ## record that the versions of expensive steps were decided on for the code as it is now
	@$(BIN)/python -m nift_assets.record_versions

format: .venv/installed ## bring all files into the one format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# make LOCKED=1: whatever is downloaded but torch is held against the hash it had when it was tested.
# torch first and pinned: it is by far the largest, and which build of it comes is the package index's default.
.venv/installed: pyproject.toml constraints.txt
	@echo "Setting up .venv (once, a few minutes) …"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --no-compile --constraint constraints.txt torch
	@$(if $(filter-out 0,$(LOCKED)),$(BIN)/pip install --quiet --no-compile --no-deps --require-hashes --requirement requirements.lock)
	@$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[train,evaluate,dev]'
	@# pip would compile on one core. A few packages bring files for other Pythons, which this one cannot compile.
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@$(BIN)/python -m nift_training.sentences --out .venv/nltk_data || echo "IFEval cannot be scored without it; all else can"
	@touch $@

clean: ## remove what was installed and cached; tables and paid answers stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
