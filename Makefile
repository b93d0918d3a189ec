# Two commands are enough: `make demo` and `make test`. Each does all of its own set-up.
# Nothing here touches the system's Python; everything goes into .venv.

VENV   := .venv
PY     := $(VENV)/bin/python
SHELL  := /bin/bash
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# One linear-algebra thread a rank: with more, two ranks on two cores hold each other up
# (an iteration of the demo then takes seconds instead of tenths).
export OMP_NUM_THREADS ?= 1
# More than there are cores on CI's machine: half of the time tests wait for processes.
PYTEST_ARGS ?= -n $(if $(filter true,$(CI)),3,2) --dist loadfile --no-loadscope-reorder

.PHONY: demo test check format docs docs-serve bench chaos simulate clean

# The demo needs the science packages, not the development tools.
$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing hpc-prefect[sqd] into $(VENV) (a minute or two, once) ..."
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[sqd]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing hpc-prefect[sqd,dev] into $(VENV) (a minute or two, once) ..."
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[sqd,dev]'
	@touch $@ $(VENV)/demo.stamp

$(VENV)/bin/python:
	@tools/make-venv $(VENV)

demo: $(VENV)/demo.stamp
	@$(PY) examples/sqd_n2/demo.py

test: check
	@$(PY) -m pytest $(PYTEST_ARGS)

check: $(VENV)/dev.stamp
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache

format: $(VENV)/dev.stamp
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# The site, into site/. Strict: a link that leads nowhere, or a page in no place of the navigation, fails.
docs: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet
	@echo "open site/index.html"

docs-serve: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

bench: $(VENV)/dev.stamp
	@for b in bench/overhead.py bench/slow_api.py bench/records.py bench/slurm.py \
	  bench/arrays.py bench/allocation.py bench/loop.py bench/many.py bench/rehearsal.py; do echo "== $$b"; $(PY) $$b || exit 1; done

# Kills at random instants, seeded: make chaos SEED=3
chaos: $(VENV)/dev.stamp
	@$(PY) tests/kills/chaos.py --seed $(or $(SEED),7)

# The product in a world in memory, each life replayed from its seed: make simulate SEEDS=1000. JOBS: processes beside
# each other. INTO: a file (absolute) of a long run, which goes on where it was stopped.
simulate: $(VENV)/dev.stamp
	@cd tests && ../$(PY) -m simulation --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),1) \
	  --jobs $(or $(JOBS),1) $(if $(INTO),--into $(INTO) --most 1000)

clean:
	@if [ -x $(VENV)/bin/hpc-prefect ]; then $(VENV)/bin/hpc-prefect server stop --home .demo/prefect; fi
	rm -rf $(VENV) .demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
