# One obvious command for each habit. The work is done in scripts/; this file orders it.

.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
BPF_SOURCES := $(wildcard bpf/*.c bpf/*.h)
BPF_OBJECT := bpf/wirespan.bpf.o
NATIVE_SOURCES := $(wildcard wirespan/native/*.c wirespan/native/*.h)
NATIVE_LIBRARY := wirespan/native/libwirespan.so.1
ARGS ?=

# A user's tests run as root; both have to look for test tools in the same place.
export XDG_CACHE_HOME ?= $(HOME)/.cache

# Two of them at once would install into one .venv.
.NOTPARALLEL:
.PHONY: help setup setup-dev environment environment-dev bpf run test lint format bench bench-anomaly soak fuzz test-tools test-image \
	alerts schema dist clean

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-13s %s\n' "$$name" "$$what"; done

setup: environment $(BPF_OBJECT) $(NATIVE_LIBRARY) ## Install what running needs and compile what is in C

setup-dev: environment-dev $(BPF_OBJECT) $(NATIVE_LIBRARY) ## The same, with what tests, lint and benchmarks need

environment:
	@scripts/setup run

environment-dev:
	@scripts/setup dev

# Loading it as well, without attaching, shows what the verifier of this kernel says about each program.
$(BPF_OBJECT): $(BPF_SOURCES) scripts/build-bpf | environment
	@scripts/build-bpf
	@$(PYTHON) -m wirespan.receiver.kernel.report $@

# The headers of bpf/ that it includes: a record is laid out once.
$(NATIVE_LIBRARY): $(NATIVE_SOURCES) $(wildcard bpf/*.h) scripts/build-native | environment
	@scripts/build-native

bpf: environment ## Compile the BPF programs again and print the verifier's instruction counts
	@rm -f $(BPF_OBJECT)
	@$(MAKE) --no-print-directory $(BPF_OBJECT)

run: setup ## Watch this machine; ARGS are those of `wirespan run`
	@exec scripts/as-root .venv/bin/wirespan run $(ARGS)

test: setup-dev ## Run all tests, as root; ARGS are those of pytest
	@exec scripts/as-root scripts/test $(ARGS)

lint: setup-dev ## Check style, types and the layers' contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy wirespan
	.venv/bin/lint-imports
	.venv/bin/clang-format --dry-run -Werror $(BPF_SOURCES) $(NATIVE_SOURCES)

format: setup-dev ## Format Python and C
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/clang-format -i $(BPF_SOURCES) $(NATIVE_SOURCES)

bench: setup-dev ## Measure; ARGS are those of bench/run.py
	@exec scripts/as-root $(PYTHON) bench/run.py $(ARGS)

bench-anomaly: setup-dev ## How well odd traces are told; ARGS="--traces N --seeds N"
	@PYTHONPATH=.:tests $(PYTHON) -m bench.anomaly $(ARGS)

soak: setup-dev ## Everything at once for ten minutes, then a backend that comes and goes; ARGS="--minutes N"
	@exec scripts/as-root env PYTHONPATH=.:tests $(PYTHON) -m bench.soak $(ARGS)

fuzz: setup-dev ## Fuzz the protocol parsers, OTLP and configurations; ARGS are those of pytest
	@.venv/bin/pytest -q tests/fuzz $(ARGS)

test-tools: environment-dev ## Build the Go programs that tests run against, once, into a cache
	@$(PYTHON) tests/tools.py

test-image: ## Build the image without a daemon, and run it; takes minutes
	@scripts/setup image
	@$(MAKE) --no-print-directory setup-dev
	@exec scripts/as-root .venv/bin/pytest -m image tests/image $(ARGS)

alerts: environment-dev ## Make the rules and dashboards of deploy/ in every spelling of their names
	@PYTHONPATH=tests $(PYTHON) -m support.alerting

schema: environment-dev ## Make config/schema.json of the models that configurations are checked against
	@$(PYTHON) -m wirespan.service.schema

dist: environment-dev ## Build an sdist and a wheel, which needs no compiler, into dist/
	@scripts/build-dist

clean: ## Remove everything that was built
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		$(BPF_OBJECT) $(NATIVE_LIBRARY)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
