# make demo: a whole search in minutes, offline, on this machine's CPU.   make test: the tests.   make install: only .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test check clean

install: .venv/installed

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (by PyTorch and Snakemake); found " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

demo: install
	$(BIN)/snakemake --cores all --configfile examples/digits.yaml

test: install
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

clean:
	rm -rf .venv .snakemake
