# Each target sets up .venv by itself; see scripts/setup.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo up test check format test-engine test-web bench soak audit lock clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: requirements.lock pyproject.toml scripts/setup
	@scripts/setup $(VENV)

demo: $(VENV)/.ready ## two replicas of the bundled model answer about three pictures, then everything ends
	@$(BIN)/vlfleet demo

up: $(VENV)/.ready ## bring a fleet of the bundled model up on port 8000, until Ctrl-C
	@$(BIN)/vlfleet up || [ $$? -eq 130 ] # Ctrl-C is how it ends

test: $(VENV)/.ready ## every test that needs neither a GPU nor vLLM
	@$(BIN)/python -m pytest -n 3 --dist loadfile

check: $(VENV)/.ready ## style, types, and that generated docs are up to date
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python scripts/reference.py --check
	@$(BIN)/python scripts/audit.py --if-online

format: $(VENV)/.ready ## mend style and generated docs
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python scripts/reference.py

test-engine: $(VENV)/.ready ## the tests marked engine: against the real vLLM on the CPU (installs .venv-vllm, 4 GB)
	@scripts/setup-vllm .venv-vllm
	@$(BIN)/python -m pytest -m engine $(ENGINE_TESTS)

test-web: $(VENV)/.ready ## the tests marked browser: the web page in headless Chromium (needs chromium; installs Playwright)
	@scripts/setup-web $(VENV)
	@$(BIN)/python -m pytest -m browser -n 2 --dist loadfile tests/web

bench: $(VENV)/.ready ## the figures of docs/measurements.md that need no GPU
	@$(BIN)/python -m benchmarks.embedded
	@$(BIN)/python -m benchmarks.gateway_overhead
	@$(BIN)/python -m benchmarks.kill

soak: $(VENV)/.ready ## every fault drill at full length, then a mixed load of 30 minutes, with a report
	@$(BIN)/python -m benchmarks.soak

audit: $(VENV)/.ready ## ask osv.dev whether anything in requirements.lock is known to be vulnerable
	@$(BIN)/python scripts/audit.py

lock: ## write requirements.lock anew
	@scripts/lock

clean: ## remove what the targets above installed
	rm -rf .venv .venv-vllm .mypy_cache .ruff_cache .pytest_cache
