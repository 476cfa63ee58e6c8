# Every target makes its own .venv first; a machine needs only Python 3.11+, make and git.
# The first that runs: version managers put commands on PATH that only print an error.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PY := .venv/bin/python

.PHONY: demo test test-slow lint format bench start lock wheel gpu-check e2e-vscode sanitize clean venv help

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: ## make or refresh .venv
	@test -n "$(PYTHON)" || { echo "atlasd needs Python 3.11 or newer (apt install python3 python3-venv)"; exit 1; }
	@$(PYTHON) bootstrap.py

demo: venv ## install all and show the main job: an editing session over LSP in this repository
	@$(PY) -m bench.demo

start: venv ## start the daemon
	@.venv/bin/atlasd start

test: venv ## the tests of every tier a CPU can run
	@tests/e2e/fetch_neovim.sh || echo "no Neovim 0.12 could be fetched: its tests are skipped"
	@$(PY) -c "import triton" 2>/dev/null || $(PY) -m pip install -qq "triton>=3.6,<4" || echo "no triton: the GPU kernels' tests are skipped"
	@$(PY) -m pytest -q

test-slow: venv ## the long suites as well
	@$(PY) -m pytest -q -m "not gpu"

lint: venv ## ruff and mypy --strict
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: venv ## let ruff mend what it can
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

bench: venv ## the numbers of bench/RESULTS.md on this machine
	@$(PY) -m bench

gpu-check: venv ## build, check and time everything that needs a CUDA device
	@$(PY) -m bench.gpu_check

e2e-vscode: venv ## the extension in a real VS Code in a browser
	@editor-extensions/vscode/e2e/run.sh

sanitize: venv ## the CPU kernels under ASan and UBSan
	@$(PY) -m atlasd_kernels.cpu.build --sanitize
	@$(PY) -m pytest -q tests/kernels/test_sanitized.py

wheel: venv ## build the wheel, with the CPU kernels and the bundled model in it
	@$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

lock: venv ## pin the dependencies anew (needs pip-tools)
	@$(PY) -m piptools compile --quiet --extra dev --generate-hashes --allow-unsafe --unsafe-package torch --unsafe-package triton \
	  --no-emit-index-url --no-emit-find-links --strip-extras --no-header -o requirements.lock pyproject.toml

clean: ## remove what make made
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
