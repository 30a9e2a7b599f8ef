# The commands of README.md. Each sets up what it needs.
SYSTEM = dcmtk genisoimage python3-venv
DEMO_SYSTEM = $(SYSTEM) curl
TEST_SYSTEM = $(DEMO_SYSTEM) chromium dicom3tools libarchive-tools libgdcm-tools mariadb-server nginx-light openssl \
    orthanc p7zip-full postgresql unzip
PYTHON = .venv/bin/python

.PHONY: setup setup-demo setup-tests demo test smoke-test serve lint bench clean

setup: .venv/installed
	@bin/apt-missing $(SYSTEM)

.venv/installed: setup.cfg pyproject.toml
	@bin/apt-missing python3-venv
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

setup-demo: setup
	@bin/apt-missing $(DEMO_SYSTEM)

setup-tests: setup
	@bin/apt-missing $(TEST_SYSTEM)

demo: setup-demo
	@$(PYTHON) -m tests.demo

test: setup-tests
	$(PYTHON) -m pytest --numprocesses=auto --dist=loadfile --cov --cov-report=term:skip-covered --cov-fail-under=90

smoke-test: setup-tests
	@$(PYTHON) -m tests.smoke

serve: setup
	bin/mkiso serve

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

bench: setup-tests
	$(PYTHON) -m benchmarks.bench
	$(PYTHON) -m benchmarks.relay
	$(PYTHON) -m benchmarks.walk
	$(PYTHON) -m benchmarks.layout
	$(PYTHON) -m benchmarks.history
	$(PYTHON) -m benchmarks.pages

clean:
	rm -rf .venv build *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache
