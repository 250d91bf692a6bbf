# Two commands do all the set-up: `make demo` and `make test`. Both need Python 3.11 or
# later, make and a C compiler, and no root; both reuse the environment in .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# What `make demo` runs: devices, and seconds until it ends by itself (else Ctrl-C).
DEMO_DEVICES ?= 25
DEMO_SECONDS ?=
DEMO_PORT    ?= 5027
# A folder to keep the demo's data in; a temporary one when empty.
DEMO_DATA    ?=

# Processes that share the test files of `make test`. Most tests wait for servers most of the time,
# so there are two processes more than cores.
TEST_WORKERS ?= $(shell echo $$(($$(nproc) + 2)))

# Options of `make test-chaos`: seconds of faults in a round, rounds, the variants that take turns
# (plain, tls, sentinel, directus), and the seed. The same seed makes the same faults.
CHAOS_SECONDS  ?= 60
CHAOS_ROUNDS   ?= 1
CHAOS_VARIANTS ?= plain
CHAOS_SEED     ?=
# More options of `make test-chaos`, such as --verbose and --keep FOLDER.
CHAOS_OPTIONS  ?=

# Options of all measurements that `make bench` runs, as --quick.
BENCH_OPTIONS ?=

# Where `make install` puts the environment, and the rest; below DESTDIR, if that is set.
PREFIX ?= /opt/tracker
SYSTEM ?= /usr/local

# compat: only so are the plugins in twisted/plugins found in the source tree.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check \
	--config-settings editable_mode=compat --editable

.PHONY: help demo test directus test-directus test-browser test-ops test-chaos test-system lint format docs bench \
	install deb clean

help:
	@echo "make demo           run the whole stack with a simulated fleet (DEMO_SECONDS=20, DEMO_DATA=folder, …)"
	@echo "make test           run every test that needs no root"
	@echo "make test-directus  run those with a real Directus, which needs g++ and installs 1 GB"
	@echo "make test-browser   run those of the console, which need chromium; pictures: build/screenshots"
	@echo "make test-ops       run those of alerts, dashboard and metrics, which need Debian's package prometheus"
	@echo "make test-chaos     make random faults under load and account for every record (CHAOS_SECONDS=60, CHAOS_SEED=…)"
	@echo "make test-system    run those on a whole machine, which need root, debootstrap and systemd-nspawn"
	@echo "make lint           ruff and mypy"
	@echo "make format         let ruff lay out the code"
	@echo "make docs           build the documentation into docs/_build"
	@echo "make bench          measure decoding, memory and throughput (BENCH_OPTIONS=--quick)"
	@echo "make install        into PREFIX (/opt/tracker), units into SYSTEM (/usr/local), all of it below DESTDIR"
	@echo "make deb            build dist/tracker_*.deb (DEB_VERSION=1.2.3)"
	@echo "make clean          remove what these have made"

demo: $(VENV)/.embedded
	@$(BIN)/tracker-admin demo --devices $(DEMO_DEVICES) --port $(DEMO_PORT) \
		$(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS)) $(if $(DEMO_DATA),--data '$(DEMO_DATA)')

# The slow files come first (testpaths in pyproject.toml), and each process takes the next file when
# it has ended one; so all end at about the same time. The tests start some hundred processes, each
# of which would compile the sources if there were no bytecode.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

# Into ~/.cache/tracker-directus, or TRACKER_DIRECTUS_CACHE, once.
directus: $(VENV)/.test
	@$(BIN)/python -c 'from tests.directus.installation import installed; print(installed())'

test-directus: directus
	$(BIN)/python -m pytest tests/directus

# In the chromium on PATH, or TRACKER_CHROMIUM.
test-browser: $(VENV)/.browser
	$(BIN)/python -m pytest tests/browser

# Needs promtool and prometheus on PATH, as in Debian's package prometheus.
test-ops: $(VENV)/.test
	$(BIN)/python -m pytest tests/ops

# It removes all processes and files that it made; python -m tests.chaos --help lists all options.
test-chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos --seconds $(CHAOS_SECONDS) --rounds $(CHAOS_ROUNDS) \
		--variants $(CHAOS_VARIANTS) $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(CHAOS_OPTIONS)

# Debian is fetched into ~/.cache/tracker-machine, or TRACKER_MACHINE_CACHE, once. Each of these
# tests goes on where the one before has ended.
test-system: $(VENV)/.test
	$(BIN)/python -m pytest --exitfirst tests/machine

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
	$(BIN)/python bench/connections.py $(BENCH_OPTIONS)
	$(BIN)/python bench/ingest.py $(BENCH_OPTIONS)
	$(BIN)/python bench/neighbours.py $(BENCH_OPTIONS)
	$(BIN)/python bench/process.py $(BENCH_OPTIONS)

# docs/install.rst says what is to be done afterwards.
install:
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSTEM='$(SYSTEM)' PYTHON='$(PYTHON)' packaging/install.sh

deb:
	@DEB_VERSION='$(DEB_VERSION)' packaging/deb.sh

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of extras; the browser set holds the test one, and that the embedded one.
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
