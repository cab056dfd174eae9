# Two commands: `make run` and `make test`. Each sets up whatever it needs, on a machine that has Python >= 3.11.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= a serene sunset over a futuristic city
OUT ?= out
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

# Small networks are faster on one thread, and the cores are the workers'.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: run test quick docs fuzz lint oldest sbom bench train clean

run: $(VENV)/ready
	$(BIN)/diptych run "$(PROMPT)" --out $(OUT)

test: $(VENV)/ready-dev
	$(PYTEST)

quick: $(VENV)/ready-dev
	$(PYTEST) -m "not slow"

# The site of the documentation, in docs/_build; links to nowhere are errors.
docs: $(VENV)/ready-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

# A minute for each reader; CI gives each ten seconds.
SECONDS ?= 60
fuzz: $(VENV)/ready-dev
	$(BIN)/python -m fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/ready-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Without the networks of timm and torchvision, which need an environment of their own, and the kills, which take long.
BENCHMARKS = $(filter-out benchmarks/foreign_networks.py benchmarks/killed_jobs.py, $(wildcard benchmarks/*.py))

bench: $(VENV)/ready-dev
	for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# Makes the classifier in the box again (minutes); the result is the file that the package ships.
train: $(VENV)/ready-dev
	$(BIN)/python training/scene_classifier.py

$(VENV)/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	$(BIN)/python -c "import matplotlib.font_manager" # lists the fonts once, which takes seconds
	touch $@

$(VENV)/ready-dev: $(VENV)/ready
	$(PIP) install -c constraints.txt -e ".[dev]"
	sh .ci/chromium
	touch $@

# The quick tests with the oldest versions that pyproject.toml allows, PyTorch excepted.
oldest:
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip --disable-pip-version-check -q install -c .ci/oldest.txt -e ".[filters,openvino,web]" \
		pytest pytest-xdist hypothesis
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 --dist worksteal -m "not slow" -W ignore::DeprecationWarning \
		--ignore tests/test_tiny_generator.py

# The packages of a core installation with their versions and licences, as CycloneDX.
sbom:
	$(PYTHON) -m venv .venv-sbom/core
	$(PYTHON) -m venv .venv-sbom/tool
	.venv-sbom/core/bin/python -m pip --disable-pip-version-check -q install -c constraints.txt .
	.venv-sbom/tool/bin/python -m pip --disable-pip-version-check -q install cyclonedx-bom
	mkdir -p dist
	.venv-sbom/tool/bin/cyclonedx-py environment .venv-sbom/core/bin/python --output-file dist/sbom.json
	rm -r .venv-sbom

clean:
	rm -rf $(VENV) out dist build
