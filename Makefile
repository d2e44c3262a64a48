# make demo: a whole search in minutes, offline, on this machine's CPU.   make test: the tests.   make install: only .venv.
# make wheel: what a device is measured with, in one file.
# make test-slurm: the workflow on clusters: a SLURM, installed and started here (root, Debian), and stand-ins of others.
# make report: searches on digits against what costs nothing, in 12 to 16 minutes on 2 cores; make report CONFIG=config.yaml: of your own searches.
# make site: the documents as pages, in site/.
# make gpu: what only a GPU can tell, as a page to send to us: three parts of at most MINUTES each, called again they go on.
PYTHON ?= python3
BIN := .venv/bin
QUIETLY := --quiet --disable-pip-version-check
# Without the files and the reason of each job: `make demo BRIEFLY=` says them, and prints the log of a failed job once more.
BRIEFLY := --quiet rules host
CONFIG ?= examples/report.yaml
MINUTES ?= 9

.PHONY: install wheel demo report site test test-slurm gpu gpu-tests gpu-steps gpu-search check clean
.NOTPARALLEL: gpu

install: .venv/installed

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (by PyTorch and Snakemake); found " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import platform, sys; sys.exit((platform.system(), platform.machine()) == ("Darwin", "x86_64") and "PyTorch is no longer made for Macs with Intel processors: take another machine; with an Apple processor, a Python for arm64 (make PYTHON=/opt/homebrew/bin/python3 ...)")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(QUIETLY) --requirement requirements.txt
	touch $@

wheel: install
	rm -rf build
	$(BIN)/pip wheel $(QUIETLY) --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build

demo: install
	$(BIN)/snakemake --cores all --configfile examples/digits.yaml $(BRIEFLY)

report: install
	$(BIN)/snakemake make_report --cores all --configfile $(CONFIG) $(BRIEFLY)

site: install
	$(BIN)/python docs/pages.py
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going --builder html --conf-dir docs . site
	@echo "Open site/docs/index.html"

test: install
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-slurm: install .venv/slurm .venv/kubernetes
	$(BIN)/python tests/cluster.py $(BIN)/python -m pytest -m cluster tests/test_slurm.py tests/test_profiles.py -n 4 --dist loadgroup --durations=0

gpu: gpu-tests gpu-steps gpu-search

# SNAKEMAKE="--config 'dataset={archive: ...}'": arguments for snakemake.
gpu-tests gpu-steps gpu-search: gpu-%: install
	$(BIN)/python benchmarks/gpu.py $* --minutes $(MINUTES) $(if $(SNAKEMAKE),--snakemake $(SNAKEMAKE))

.venv/slurm: profiles/slurm/requirements.txt profiles/cluster-generic/requirements.txt | install
	$(BIN)/pip install $(QUIETLY) --upgrade --no-deps --target $@ $(addprefix --requirement ,$^)

.venv/kubernetes: profiles/kubernetes/requirements.txt | install
	$(BIN)/pip install $(QUIETLY) --upgrade --no-deps --target $@ --requirement $<

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

clean:
	rm -rf .venv .snakemake
