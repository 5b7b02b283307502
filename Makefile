# `make book` and `make test` set up everything they need, in either order.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.installed
JOBS   ?= 2

.DEFAULT_GOAL := help
.PHONY: help venv book pdf test notebooks lab clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  PYTHON=python3.12 chooses the interpreter (3.11 or newer), JOBS=4 the number of processes."

venv: $(READY)  ## install everything into .venv

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "No '$(PYTHON)' found: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {v}. Name another: make PYTHON=python3.12")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,test]'
	@touch $@

book: $(READY)  ## build the executed book into _build/html
	$(PY) book/tools/build.py

pdf: book  ## print the built book into _build/zolib.pdf (needs Chromium)
	$(PY) book/tools/pdf.py

test: $(READY)  ## run every test, the chapters' outputs compared cell by cell
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

notebooks: $(READY)  ## execute every chapter and store its outputs in canonical form
	$(PY) book/tools/canonicalise.py --jobs $(JOBS) chapters

lab: $(READY)  ## open the chapters in JupyterLab
	$(PY) -m jupyter lab chapters

clean:  ## remove what was built (not .venv)
	rm -rf _build .pytest_cache .hypothesis
	find book chapters tests zolib -name __pycache__ -prune -exec rm -rf {} +
	find chapters -name .ipynb_checkpoints -prune -exec rm -rf {} +
