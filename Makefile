# `make demo` and `make test` work in a fresh clone: they create .venv and install by themselves.
PYTHON ?= python3
BIN := .venv/bin
# one more than there are processors, because some tests wait for processes and servers
WORKERS := $(shell $(PYTHON) -c "import os; print(os.cpu_count() + 1)")
.PHONY: demo docs test test-slow lint format dist lowest bench mutants fuzz chaos tamper soak remote-faults clean

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[plot,train,track,lint,eval,ray,dask,slurm,dev]'
	touch $@

test: .venv/.installed
	$(BIN)/python -m tools.compile_kernels
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not compiled and not once and not slow"

# Heavier checks, and ten times as many examples for every property.
test-slow: .venv/.installed
	$(BIN)/python -m pytest -n auto -m slow
	HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -n auto --timeout=3000

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: .venv/.installed
	$(BIN)/python -m tools.demo $(if $(FASTA),--fasta $(FASTA))

# The site in site/. Notebooks are executed by hand: $(BIN)/python -m tools.tutorials
docs: .venv/.docs-installed
	$(BIN)/python -m tools.build_docs

.venv/.docs-installed: .venv/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# The sdist and the wheel, and both used in fresh environments, without torch and with all extras.
dist: .venv/.installed
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m tools.try_dist dist

# The wheel once more, with the oldest versions that pyproject.toml allows; needs Python 3.11, for which they have
# wheels. TORCH=2.13.0 takes that version of torch, where the oldest cannot be installed.
lowest: .venv/.installed
	test -d dist || $(BIN)/python -m build
	$(BIN)/python -m tools.try_dist --lowest $(if $(TORCH),--torch $(TORCH)) dist

# What others are compared with: programs from Debian, where apt-get is there, and Python packages beside the environment.
.bench-peers/.installed: bench/peers.txt .venv/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target .bench-peers --upgrade -r bench/peers.txt
	-command -v kmc jellyfish >/dev/null || apt-get install -y -qq kmc jellyfish
	touch $@

bench: .bench-peers/.installed
	PYTHONPATH=.bench-peers $(BIN)/python -m bench.bench_offline --write
	PYTHONPATH=.bench-peers $(BIN)/python -m bench.bench_masking --write
	PYTHONPATH=.bench-peers $(BIN)/python -m bench.bench_loader --write
	PYTHONPATH=.bench-peers $(BIN)/python -m bench.bench_views --write
	$(BIN)/python -m bench.bench_queries --write
	$(BIN)/python -m bench.bench_serve --write
	$(BIN)/python -m bench.bench_train --write --threads 1
	$(BIN)/python -m bench.open_manifest --write
	$(BIN)/python -m bench.simulate_ranks --write
	$(BIN)/python -m bench.plan_scale --write
	$(BIN)/python -m tools.doc_figures

# Change one operator or number at a time, and see whether a test fails; about an hour.
mutants: .venv/.installed
	$(BIN)/python -m tools.mutants --markdown docs/reliability_mutants.md

fuzz: .venv/.installed
	$(BIN)/python -m tools.fuzz --tries 10000 --markdown docs/reliability_fuzz.md --json fuzz.json

# Kill commands and trainings at random moments, fill disks, change files under readers; mounts small file systems (root).
chaos: .venv/.installed
	$(BIN)/python -m tools.chaos --output-dir chaos --kills 200 --training-kills 40 --markdown docs/reliability_chaos.md

# Flip, cut, append, swap and mix the files of sets of every format: verify finds all, a loader never gives other batches.
tamper: .venv/.installed
	$(BIN)/python -m tools.chaos.tamper --markdown docs/reliability_tamper.md

# An hour of steps of the loader in threads, in processes, from a server and from a URL: nothing may grow. Parents and peers
# of processes are killed: the others end.
soak: .venv/.installed
	$(BIN)/python -m tools.soak --markdown docs/reliability_soak.md --json soak.json

# What sets at URLs do when their server fails.
remote-faults: .venv/.installed
	$(BIN)/python -m tools.remote_faults --times 20 --markdown docs/reliability_remote.md

clean:
	rm -rf .venv .bench-peers demo build dist site docs/assets *.egg-info
