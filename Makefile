# Everything a developer runs. A fresh machine needs python3 (3.11 or newer) and make.
#   make PYTHON=python3.12 test    another interpreter (after `make clean`)
#   make TORCH=1 test              with PyTorch, so that its tests run too
#   make ARGS="-k dense" test      more arguments for pytest: also with fuzz and compare

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --quiet --disable-pip-version-check
BENCH  := $(VENV)/bin/fastbp bench
READY  := $(VENV)/.test $(if $(TORCH),$(VENV)/.torch)

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

demo: $(VENV)/.demo  ## train on the digits and show what was learnt
	@$(VENV)/bin/fastbp demo

test: lint types  ## lint, types, and every test and example, in two processes
	$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

widths: $(READY)  ## the kernels' tests with narrower vectors than this machine has
	for bits in 128 256; do FASTBP_SIMD=$$bits $(PY) -m pytest -n 2 --dist loadfile \
	    tests/kernels/test_dense.py tests/kernels/test_network.py tests/kernels/test_threads.py $(ARGS) || exit 1; done

lint: $(READY)  ## ruff: rules and format
	$(PY) -m ruff check
	$(PY) -m ruff format --check

# mypy knows no package-dir: build/types/fastbp shows it the package as it is installed.
types: $(READY)  ## mypy over fastbp and fastbp.kernels
	@rm -rf build/types && mkdir -p build/types/fastbp
	@cd build/types/fastbp && ln -s ../../../fastbp/* ../../../kernels .
	cd build/types && $(CURDIR)/$(PY) -m mypy --config-file ../../pyproject.toml --cache-dir ../mypy -p fastbp

# The parts can be run one by one: a part writes its own files, `make bench-table` what is there.
bench: bench-dense bench-step bench-growth bench-table  ## measure beside all peers, write README.md's tables

bench-dense: $(VENV)/.bench
	$(BENCH) dense --output bench/results $(ARGS)

bench-step: $(VENV)/.bench  # two processes: JAX takes its number of threads when it starts
	$(BENCH) step --output bench/results --threads all $(ARGS)
	$(BENCH) step --output bench/results --threads 1 $(ARGS)

bench-growth: $(VENV)/.bench
	$(BENCH) step --output bench/results --shapes growth $(ARGS)

bench-table: $(READY)
	$(PY) bench/table.py

compare: $(READY)  ## fastbp and NumPy beside the last `make compare` (pytest-benchmark)
	$(PY) -m pytest bench -o addopts= -o filterwarnings=default \
	    -o python_files='bench_*.py' -o python_functions='bench_*' \
	    --benchmark-only --benchmark-sort=name --benchmark-columns=min,median,iqr,rounds \
	    --benchmark-autosave --benchmark-compare $(ARGS)

fuzz: $(READY)  ## 10,000 random layers, and the property tests with many more examples
	$(PY) -m pytest tests -m hypothesis --hypothesis-profile=fuzz $(ARGS)

wheel-check: $(READY)  ## build wheel and sdist, install each, use them
	@.ci/run package

setup: $(READY)  ## only create .venv, as the tests need it
	@:

clean:  ## remove .venv and all that was built or cached
	rm -rf $(VENV) build dist *.egg-info .benchmarks .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("fastbp needs Python 3.11 or newer, this is %s: try make PYTHON=python3.11" % sys.version.split()[0])'
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.created
	@echo "installing fastbp for the demo into $(VENV) (once; about a minute)"
	@$(PIP) install -e ".[demo]"
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.created
	@echo "installing fastbp and its test tools into $(VENV) (once; about a minute)"
	@$(PIP) install -e ".[test]"
	@touch $(VENV)/.demo $@

$(VENV)/.torch: $(VENV)/.test
	@echo "installing PyTorch into $(VENV) (once; some minutes)"
	@$(PIP) install -e ".[torch]"
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	@echo "installing PyTorch, JAX and scikit-learn into $(VENV) (once; some minutes)"
	@$(PIP) install -e ".[bench]" || for package in torch jax; do \
	    $(PIP) install $$package || echo "no $$package for this machine: the tables will say so"; done
	@touch $@

.NOTPARALLEL:  # benchmarks would disturb each other
.PHONY: help demo test widths lint types bench bench-dense bench-step bench-growth bench-table compare fuzz wheel-check setup clean
