# Everything runs in a virtual environment of its own, made when needed:
#
#   make demo                      train, evaluate, draw and save: the example
#   make test                      lint, and run the tests
#   make test PYTHON=python3.11    with another Python
#   make test VENV=/tmp/venv       in another virtual environment
#   make benchmark                 speed beside PyTorch, which it installs
#   make benchmark SPEED=--sweep   with arguments of benchmarks/speed.py

PYTHON ?= python3
VENV ?= .venv
PEERS ?= .peers-venv

.PHONY: demo test docs benchmark clean

demo: $(VENV)/visualization.installed
	$(VENV)/bin/python examples/quickstart.py

test: $(VENV)/test.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest -n auto --dist worksteal

docs: $(VENV)/docs.installed
	$(VENV)/bin/python -m mkdocs build --strict

benchmark: $(VENV)/visualization.installed $(PEERS)/installed
	$(VENV)/bin/python benchmarks/speed.py \
	    --peers-python $(PEERS)/bin/python $(SPEED)

clean:
	rm -rf $(VENV) $(PEERS) build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An empty file tells that the extra of its name is installed, so that pip (and
# the network) is asked again only when the requirements may have changed.
$(VENV)/%.installed: setup.py keras_meta/version.py | $(VENV)/made
	$(VENV)/bin/python -m pip install --editable '.[$*]'
	@touch $@

$(PEERS)/installed: benchmarks/requirements.txt | $(VENV)/made
	$(VENV)/bin/python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --requirement $<
	@touch $@

$(VENV)/made:
	@command -v $(PYTHON) > /dev/null || { \
	    echo "keras_meta needs Python 3.10 or later, but there is no" \
	        "'$(PYTHON)'. Install it, or name another:" \
	        "make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "keras_meta needs Python 3.10 or later, but '$(PYTHON)' is" \
	        "$$($(PYTHON) --version 2>&1). Name another:" \
	        "make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
