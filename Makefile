# The commands of README.md. Each sets up what it needs.
SYSTEM = dcmtk genisoimage poppler-utils python3-venv
DEMO_SYSTEM = $(SYSTEM) curl
# tests/support/programs.py says of each how it is started. A host may have Java and npm from elsewhere.
JAVA = $(shell command -v java)
NPM = $(shell command -v npm)
TEST_SYSTEM = $(DEMO_SYSTEM) chromium chromium-headless-shell dicom3tools firefox-esr iproute2 libarchive-tools libatomic1 \
    libgdcm-tools libpixelmed-java mariadb-server nftables nginx-light openssl orthanc p7zip-full postgresql stunnel4 systemd unzip \
    $(if $(JAVA),,default-jre-headless) $(if $(NPM),,npm)
PACKAGE_SYSTEM = debootstrap iproute2
PYTHON = .venv/bin/python
# What makes .venv: `make clean setup PYTHON3=/usr/bin/python3` chooses another.
PYTHON3 ?= python3
# Tests wait for other programs most of their time: six processes for two cores. The long files go first, in the order
# in which they are found; those of tests/unit, none of which takes long, fill what is left.
# Each process imports all tests, and many start Python again: what is compiled is kept, whatever the environment says.
PYTEST = PYTHONDONTWRITEBYTECODE= $(PYTHON) -m pytest --numprocesses=$(shell expr $$(nproc) \* 3) --dist=loadfile --no-loadscope-reorder
CHECK = $(PIP) check || { echo 'The lock files lack what setup.cfg asks for: run `make lock`' >&2; exit 1; }
AS_ROOT = $(if $(filter 0,$(shell id -u)),,sudo)
PIP = .venv/bin/pip --quiet --disable-pip-version-check
LOCK = build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
    --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)

.PHONY: setup setup-demo setup-tests lock viewer demo test coverage smoke-test deb test-package test-fresh serve lint bench screenshots clean

setup: .venv/installed
	@bin/apt-missing $(SYSTEM)

# What a host needs that runs mkiso.
.venv/installed: setup.cfg pyproject.toml requirements.lock requirements-build.lock
	@bin/apt-missing python3-venv
	umask 022 && $(PYTHON3) -m venv --clear .venv
	bin/install-locked $(PYTHON) requirements-build.lock
	bin/install-locked $(PYTHON) requirements.lock
	umask 022 && $(PIP) install --no-deps --no-build-isolation --editable .
	@$(CHECK)
	@touch $@
	@bin/who-can-run

# And the tools of developers, beside it. Where their lock file changes, all is made anew: what it no longer names has to go.
.venv/installed: $(if $(wildcard .venv/developed),requirements-dev.lock)
.venv/developed: .venv/installed requirements-dev.lock
	bin/install-locked $(PYTHON) requirements-dev.lock
	@$(CHECK)
	@touch $@

# The lock files anew: what a host installs, with the tools of developers, and what builds. UPGRADE=--upgrade takes the newest.
lock:
	@bin/apt-missing python3-venv
	$(PYTHON3) -m venv --clear build/lock && build/lock/bin/pip install --quiet --disable-pip-version-check uv
	$(LOCK) --extra commit --extra mysql --extra postgresql --output-file requirements.lock setup.cfg
	$(LOCK) --all-extras --constraint requirements.lock --output-file requirements-dev.lock setup.cfg
	echo setuptools | $(LOCK) --constraint requirements-dev.lock --output-file requirements-build.lock -

setup-demo: setup
	@bin/apt-missing $(DEMO_SYSTEM)

setup-tests:
	@bin/apt-missing $(TEST_SYSTEM)
	@$(MAKE) --no-print-directory --jobs=2 .venv/developed build/node/installed build/viewer

# What the tests' archive in JavaScript is made of, as its lock file names it.
build/node/installed: $(wildcard tests/support/node/package*.json)
	mkdir -p build/node && cp $^ build/node
	npm ci --prefix build/node --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

# A viewer that works in any browser, for `media.viewer_dir`: our pages, and what viewer/package-lock.json names.
viewer:
	@$(if $(NPM),,bin/apt-missing npm)
	@$(MAKE) --no-print-directory build/viewer

VIEWER_PARTS = build/viewer-parts/node_modules
build/viewer: $(shell find viewer -type f) Makefile
	rm -rf $@ build/viewer-parts && mkdir -p build/viewer-parts && cp viewer/package*.json build/viewer-parts
	npm ci --prefix build/viewer-parts --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
	cp -r viewer/disc build/viewer-parts/disc
	cp $(VIEWER_PARTS)/dcmjs/build/dcmjs.min.js build/viewer-parts/disc/VIEWER/DCMJS.JS
	cp $(VIEWER_PARTS)/dcmjs-imaging/build/dcmjs-imaging.min.js build/viewer-parts/disc/VIEWER/IMAGING.JS
	{ printf 'window.DECODERS = "data:application/wasm;base64,' && \
	    base64 --wrap=0 $(VIEWER_PARTS)/dcmjs-imaging/build/dcmjs-native-codecs.wasm && echo '";'; } \
	    > build/viewer-parts/disc/VIEWER/DECODERS.JS
	cd build/viewer-parts && { cat ../../viewer/NOTICES.TXT && \
	    find node_modules \( -iname 'licen[cs]e*' -o -path '*/pako/lib/zlib/README' \) -type f | LC_ALL=C sort | xargs tail -n +1; } \
	    > disc/VIEWER/LICENCES.TXT
	mv build/viewer-parts/disc $@ && touch $@

# What the tests are compiled to: each of many processes that begin at once would do so for itself.
build/compiled: .venv/developed $(shell find mkiso tests -name '*.py')
	mkdir -p build
	for part in unit integration; do \
	    PYTHONDONTWRITEBYTECODE= $(PYTHON) -m pytest --collect-only --quiet tests/$$part >/dev/null & \
	done; wait
	@touch $@

demo: setup-demo
	@$(PYTHON) -m tests.demo

test: setup-tests build/compiled
	$(PYTEST)

# Every test once more, traced: which takes a good deal longer.
coverage: setup-tests build/compiled
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-fail-under=90

smoke-test: setup-tests
	@$(PYTHON) -m tests.smoke

deb: setup
	@packaging/build

test-package: deb setup-tests
	@bin/apt-missing $(PACKAGE_SYSTEM)
	@$(AS_ROOT) $(PYTHON) -m tests.package

# README's commands in a bare Debian; by hand, before a release. FRESH=--later: among later releases of every package.
test-fresh: setup
	@bin/apt-missing $(PACKAGE_SYSTEM)
	@$(AS_ROOT) $(PYTHON) -m tests.fresh $(FRESH)

serve: setup
	bin/mkiso serve

lint: .venv/developed
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

bench: setup-tests
	$(PYTHON) -m benchmarks.bench
	$(PYTHON) -m benchmarks.relay
	$(PYTHON) -m benchmarks.queue
	$(PYTHON) -m benchmarks.walk
	$(PYTHON) -m benchmarks.layout
	$(PYTHON) -m benchmarks.tls
	$(PYTHON) -m benchmarks.history
	$(PYTHON) -m benchmarks.search
	$(PYTHON) -m benchmarks.metrics
	$(PYTHON) -m benchmarks.pages
	$(PYTHON) -m benchmarks.hosts
	$(PYTHON) -m benchmarks.soak

screenshots: setup-tests
	$(PYTHON) -m tests.screenshots
	$(PYTHON) -m tests.screenshots_discs
	$(PYTHON) -m tests.screenshots_web

clean:
	rm -rf .venv build *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache
