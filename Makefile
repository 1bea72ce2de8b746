# Everything a person or a machine does with this project. "make help" lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# moshi's own pins would hold back torch, aiohttp and numpy (docs/architecture.md, "Decisions").
MOSHI := moshi==0.2.13
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
ARGS ?=
# Processes that share the tests, a file to each at a time: tests/support/shares.py. Tests mostly wait, so there is one more
# than cores on a small machine. With 0 there is none but pytest's.
WORKERS ?= 3
# Threads of torch that wait for each other sleep, and leave the core to the other worker. What hundreds of child processes
# import is compiled once, whatever the environment says.
PYTEST := OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
FESTIVAL := /usr/share/festival/voices
# WebRTC clients that others wrote, for tests.
CLIENTS := tests/foreign/js
GSTREAMER := python3-gi gir1.2-gst-plugins-bad-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
	gstreamer1.0-plugins-bad gstreamer1.0-nice

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.PHONY: serve
serve: $(VENV)/.installed ## Set up and start the server: make serve ARGS="--port 9000"
	@exec $(BIN)/rtc-server serve $(ARGS)

.PHONY: turn
turn: $(VENV)/.installed ## Start coturn, the relay for clients in other networks, and say how the server uses it
	@exec $(BIN)/rtc-server turn $(ARGS)

.PHONY: cluster
cluster: $(VENV)/.installed-cluster ## Start a cluster on this machine, to look at and to break: make cluster ARGS="--show"
	@exec $(BIN)/python -m lab.cluster $(ARGS)

.PHONY: check-machine
check-machine: $(VENV)/.installed ## Say what this machine can run
	@$(BIN)/rtc-server check $(ARGS)

.PHONY: setup
setup: $(VENV)/.installed ## Make the virtual environment and install the server

.PHONY: test
test: $(VENV)/.installed-dev system clients ## Set up and run all tests: make test ARGS="-k echo"
	@$(PYTEST) $(ARGS)

.PHONY: test-fast
test-fast: $(VENV)/.installed-dev ## Run what tells within three minutes: no browser, no soak, no training, no sound in time
	@$(PYTEST) -m "not (browser or soak or slow or alone)" --ignore=tests/browser --ignore=tests/training \
	  --hypothesis-profile=fast $(ARGS)

.PHONY: soak
soak: $(VENV)/.installed-dev ## Make a thousand calls, and see that they leave nothing behind
	@RTC_TESTS_CALLS=1000 $(BIN)/python -m pytest -m soak $(ARGS)

.PHONY: check
check: lint test ## What has to be green before a commit lands: lint, types, layering, all tests

.PHONY: lint
lint: $(VENV)/.installed-dev ## Format check, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

.PHONY: format
format: $(VENV)/.installed-dev ## Format the code and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(VENV)/.installed-dev ## Measure: see docs/benchmarks.md
	@$(BIN)/python -m bench $(ARGS)

.PHONY: train
train: $(VENV)/.installed-dev system ## Train the bundled model again: see training/README.md
	@$(PIP) -e '.[training,voices]'
	@$(BIN)/python -m training $(ARGS)

.PHONY: evaluate
evaluate: $(VENV)/.installed-dev system ## Examine the bundled model: see rtc_server/models/pico/README.md
	@$(BIN)/python -m training.evaluate $(ARGS)

.PHONY: audit
audit: $(VENV)/.installed-dev ## Ask for published vulnerabilities of what is installed (needs the network)
	@$(BIN)/python -m tools.audit $(ARGS)

.PHONY: system
system: ## Install what the tests of browsers, networks and voices need, where that is possible
	@missing=""; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	command -v firefox-esr >/dev/null || missing="$$missing firefox-esr"; \
	command -v pulseaudio >/dev/null || missing="$$missing pulseaudio"; \
	command -v turnserver >/dev/null || missing="$$missing coturn"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v espeak-ng >/dev/null || missing="$$missing espeak-ng"; \
	apertium -l 2>/dev/null | grep -q eng-spa || missing="$$missing apertium apertium-eng-spa"; \
	command -v flite >/dev/null || missing="$$missing flite"; \
	command -v festival >/dev/null || missing="$$missing festival"; \
	test -d $(FESTIVAL)/us/cmu_us_slt_arctic_hts || missing="$$missing festvox-us-slt-hts"; \
	test -d $(FESTIVAL)/english/ked_diphone || missing="$$missing festvox-kdlpc16k"; \
	test -d $(FESTIVAL)/english/kal_diphone || missing="$$missing festvox-kallpc16k"; \
	test -d /usr/share/asterisk/sounds/en_US_f_Allison || missing="$$missing asterisk-core-sounds-en-wav"; \
	command -v curl >/dev/null || missing="$$missing curl"; \
	command -v nginx >/dev/null || missing="$$missing nginx-light"; \
	command -v promtool >/dev/null || missing="$$missing prometheus"; \
	command -v ip >/dev/null || missing="$$missing iproute2"; \
	command -v npm >/dev/null || missing="$$missing nodejs npm"; \
	/usr/bin/python3 tests/foreign/gst_echo.py >/dev/null 2>&1 || missing="$$missing $(GSTREAMER)"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing:$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
	  echo "hint: without$$missing some tests are skipped; on Debian: sudo apt-get install$$missing"; \
	fi

.PHONY: clients
clients: system $(VENV)/.installed-dev ## Install the clients of others that tests talk to: with npm, and in an environment of their own
	@$(BIN)/python -m tests.foreign.agents || echo "hint: without the agents' packages some tests are skipped"
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(CLIENTS)/node_modules/.installed; \
	else echo "hint: without npm some tests are skipped"; fi

$(CLIENTS)/node_modules/.installed: $(CLIENTS)/package.json
	@cd $(CLIENTS) && npm install --no-package-lock --no-audit --no-fund --silent
	@touch $@

.PHONY: clean
clean: ## Remove the virtual environment and what the tests left
	rm -rf $(VENV) $(CLIENTS)/node_modules .venv-* artifacts .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "error: there is no $(PYTHON)"; \
	  echo "hint: install Python 3.11 or later, or make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11"; echo "hint: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "hint: on Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml Makefile | $(VENV)/bin/python
	@echo "installing the server (a few minutes the first time)"
	@$(PIP) -e '.[rooms]'
	@$(PIP) --no-deps $(MOSHI)
	@touch $@

$(VENV)/.installed-cluster: $(VENV)/.installed
	@echo "installing Ray"
	@$(PIP) -e '.[cluster]' 'psutil>=7,<8'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the tools of the tests"
	@$(PIP) -e '.[dev,training]'
	@touch $@
