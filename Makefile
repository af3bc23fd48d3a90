# Each target sets up what it needs, so `make demo` works in a fresh checkout.
# PYTHON=python3.12 chooses the Python; ARGS="..." adds options to a target's last command;
# PART=restart chooses one part of a benchmark.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup run demo test format lint types spark-test cover soak endurance bench bench-quick bench-peers man check clean site site-serve fuzz audit audit-online mutants

help: ## List the targets
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Build .venv, with alphabet and alphabet-replay in .venv/bin

run: $(READY) ## Run the server
	$(BIN)/alphabet run $(ARGS)

demo: $(READY) ## Count a file of votes through a crash, and show that the totals agree
	$(BIN)/alphabet demo $(ARGS)

test: $(READY) ## Run all tests
	$(BIN)/pytest $(ARGS)

format: $(READY) ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

lint: $(READY) ## Check the code's style and form
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY) ## Check the types
	$(BIN)/mypy

spark-test: $(READY) ## Run the tests with Spark itself, which needs Java 17 or newer
	@$(PIP_INSTALL) --no-build-isolation --editable '.[dev,spark]'
	$(BIN)/pytest tests/spark/exact.py tests/spark/cluster.py $(ARGS)

cover: $(READY) ## Run all but the slow tests and report the branches they miss
	$(BIN)/coverage run -m pytest -m "not slow" $(ARGS)
	$(BIN)/coverage report

soak: $(READY) ## Run all tests at length: many more examples and crashes
	ALPHABET_SOAK=1 $(BIN)/pytest --override-ini faulthandler_timeout=7200 $(ARGS)
	@! command -v java >/dev/null || ALPHABET_SOAK=1 $(MAKE) --no-print-directory spark-test

endurance: $(READY) ## Let everything happen at once for an hour, and print a report
	$(BIN)/python -m tests.endurance_report $(ARGS)

bench: $(READY) ## Measure everything within an hour, or PART alone; results go to docs
	$(BIN)/python -m bench $(PART) --output docs/benchmarks $(ARGS)
	$(BIN)/python -m bench.scale_model --write docs/SCALING.md

bench-quick: $(READY) ## Measure everything in five minutes, or PART alone, and write nothing
	$(BIN)/python -m bench $(PART) --quick $(ARGS)

bench-peers: $(READY) ## Add the libraries of benchmarks' peers, and Spark's, to .venv
	@$(PIP_INSTALL) --no-build-isolation --editable '.[bench,dev,spark]'

fuzz: $(READY) ## Fuzz every parser with coverage guidance, or TARGET alone, for SECONDS each
	@$(PIP_INSTALL) --no-build-isolation --editable '.[dev,fuzz]'
	$(BIN)/python -m tests.fuzzing $(TARGET) $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)
mutants: $(READY) ## Put small mistakes into PART, a module, and list those that no test notices
	$(BIN)/python -m tests.mutants $(or $(PART),all) $(ARGS)

man: $(READY) ## Write the manual pages in docs/man from the commands themselves
	$(BIN)/python -m alphabet.man_page docs/man

site: $(READY) ## Build the documents as a site in build/site; a warning is an error
	$(BIN)/python -m docs.site $(ARGS)

site-serve: site ## Build the site, and show it on 127.0.0.1:8020
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8020

audit: $(READY) ## Check that what is installed is what was chosen, and intact
	$(BIN)/python -m tests.audit

audit-online: $(READY) ## Ask for known vulnerabilities of all that is pinned
	@$(BIN)/python -m venv .venv/audit
	@.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10'
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

check: lint types audit ## Check style, form, types and dependencies

clean: ## Remove .venv and all that these targets made; never a data directory
	rm -rf .venv .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define PYTHON_SUITS
import sys
if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is %d.%d: name one, as in `make setup PYTHON=python3.11`." % sys.version_info[:2])
import importlib.util
if importlib.util.find_spec("ensurepip") is None:
    sys.exit("$(PYTHON) cannot make virtual environments: `apt-get install python%d.%d-venv` adds that." % sys.version_info[:2])
endef
export PYTHON_SUITS

# The stamp is written last and removed before a change: without it .venv is half made, and is begun again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "$$PYTHON_SUITS"
	@echo "Setting up .venv (half a minute or so)"
	@test -e $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	@$(PIP_INSTALL) hatchling
	@$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@
