# `make book` and `make test` are all that a fresh machine needs: Python 3.11 or newer, make and git.
PYTHON ?= python3
SCALE ?= laptop
CHAPTER ?=
EDITION ?= full
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help book pdf slides test check bench clean
.DEFAULT_GOAL := help

help:
	@echo "make book [SCALE=smoke|laptop|gpu|paper] [CHAPTER=NN] [EDITION=student]  run the chapters and build book/_build/html/index.html"
	@echo "make slides [SCALE=smoke|laptop|gpu|paper]             make slides of the chapters that ran: book/_build/slides/index.html"
	@echo "make pdf                                               print the built book to structure-first.pdf"
	@echo "make test                                              run the whole test suite"
	@echo "make check                                             read the code: format, lint, types"
	@echo "make bench                                             print how fast this machine is, as ratios"
	@echo "make clean                                             remove all that make made: .venv, book/_build, caches"
	@echo "PYTHON=python3.12 names another Python to make .venv with; SCALE is laptop unless said."

book: $(READY)
	@$(BIN)/structure-first book --scale "$(SCALE)" --edition "$(EDITION)" $(if $(CHAPTER),--chapter "$(CHAPTER)")

pdf: $(READY)
	@$(BIN)/structure-first pdf

slides: $(READY)
	@$(BIN)/structure-first slides --scale "$(SCALE)"

# Many tests start Python anew: whatever the environment says, each finds the package compiled.
test: $(READY)
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile

check: $(READY)
	@$(BIN)/ruff format --check -q src tests
	@$(BIN)/ruff check -q src tests
	@$(BIN)/mypy

bench: $(READY)
	@$(BIN)/structure-first bench

# torch first and alone: whatever depends on it then takes this release and looks for no other.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@echo "installing into .venv (some minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check torch -c constraints.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e ".[test]" -c constraints.txt
	@touch $@

clean:
	rm -rf .venv book/_build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf src/*.egg-info
