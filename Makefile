# Two commands: `make demo` (the whole chain on a real GPU cluster's power) and `make test` (what CI runs).
# Each sets up what it needs in .venv and says what it does.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
OUT ?= demo-out

.PHONY: help setup build lint lint-cython pxd test stop-matrix syscall-faults test-newest constraints docs demo bench bench-check icount power-cuts foreign-grid soak world control zoo carbon progress fuzz prove mutants models reproduce advisories test-vm wheel deb clean arm wheels layer

help:
	@sed -n 's/^#: //p' Makefile

#: make demo      watch the controller hold a GPU room under its grid limit; leaves demo-out/report.html
demo: build
	@$(VENV)/bin/tidegate demo --out $(OUT)

#: make test      lint, types and every test that fits a few minutes
test: lint
	$(PY) -m pytest $(PYTEST)

#: make stop-matrix     `stop` from each place under each attack, on running sites (some minutes); the table in build/stop.json
stop-matrix: build
	@mkdir -p build
	TIDEGATE_STOP_MATRIX=1 TIDEGATE_STOP_TABLE=build/stop.json $(PY) -m pytest -q -s tests/world/stop

#: make syscall-faults  calls of libc that fail in supervisor, gateway, sidecar and console of a running site (some minutes)
syscall-faults: build
	TIDEGATE_SYSCALL_FAULTS=1 $(PY) -m pytest -q -s tests/world/faults

#: make docs      the pages as a site that needs no network: build/site/index.html
docs: setup
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict
	@echo "docs: build/site/index.html"

#: make bench     figures beside their peers, in one run: build/bench/all.md, all.json
bench: build
	@mkdir -p build/bench
	@failed=; for script in tests/bench/bench_*.py; do \
	    echo "== $$script"; $(PY) $$script --out build/bench || failed="$$failed $$script"; \
	done; \
	$(PY) tests/bench/instructions.py --out build/bench || failed="$$failed instructions"; \
	$(PY) tests/bench/table.py gather --from build/bench || failed="$$failed table"; \
	[ -z "$$failed" ] || { echo "bench: a figure was missed or a bench broke off:$$failed" >&2; exit 1; }

#: make bench-check   ratios (of the last make bench) and instruction counts (taken anew) beside those of tests/bench/measured.json
# BENCH=instructions for the counts alone, which need no make bench before.
bench-check: build
	@$(PY) tests/bench/table.py check --from build/bench $(if $(BENCH),--only $(BENCH)) || \
	    { status=$$?; [ $$status -eq 77 ] && echo "bench-check: skipped"; }

#: make icount    the whole product at 1 kHz in a guest whose time is counted in instructions: 0 missed, same path length (SECONDS=60)
# MACHINE=aarch64: an arm64 board instead, with the cross-built core.
icount: build
	@$(PY) tests/vm/icount_run.py --machine $(or $(MACHINE),x86_64) --seconds $(or $(SECONDS),60) --out build/icount.json || \
	    { status=$$?; [ $$status -eq 77 ] && echo "icount: skipped"; }

#: make power-cuts  the power of a machine that writes goes at random; is its disk whole, with all that was promised? (CUTS=100)
power-cuts: build
	@$(PY) tests/vm/power_cuts.py --cuts $(or $(CUTS),100) --seed $(or $(SEED),20) --out build/power-cuts.json || \
	    { status=$$?; [ $$status -eq 77 ] && echo "power-cuts: skipped"; }

#: make soak      everything running for HOURS=4, disturbed at random (SEED=1); build/soak/soak.html
soak: build
	@$(PY) tests/soak/soak.py --hours $(or $(HOURS),4) --seed $(or $(SEED),1) --out build/soak

#: make world     faults against the whole site in virtual time: -O0 and -O2 agree, answer times, 10^8 cycles (CYCLES=1e9)
world: build
	@$(PY) tests/world/same_bytes.py
	@$(PY) tests/world/reaction.py --alarms 10000 --silences 1000
	@$(PY) tests/world/campaign.py --seeds 1:2 --cycles $(or $(CYCLES),1e8)

#: make control   10^4 seeded minutes of the whole site under random policies (MINUTES=100 for fewer); some 80 minutes of processor time
control: build
	@$(PY) tests/world/minutes.py --minutes $(or $(MINUTES),10000) --jobs $$(nproc)

#: make zoo       10^4 minutes of seeded plants, each beside its own floor (MINUTES=500 for fewer); figures in build/zoo
zoo: build
	@mkdir -p build/zoo
	@$(PY) tests/world/zoo.py --cases broken --jobs $$(nproc) --out build/zoo --report
	@$(PY) tests/world/zoo.py --minutes $(or $(MINUTES),10000) --jobs $$(nproc) --out build/zoo

#: make foreign-grid  control and account on the IEEE 13 node feeder, solved by OpenDSS (MINUTES=60 for more than 15)
foreign-grid: build
	@$(PY) tests/world/foreign_grid.py --minutes $(or $(MINUTES),15) --out build/foreign-grid.json

#: make carbon    10^5 site-days conserved and equal to plain fractions, 1,000 kills on both databases, 10,000 bit flips
# CARBON=conserved, kills or flips runs one of them. Slices of each are in make test.
carbon: build
	@$(PY) tests/tools/carbon_long.py $(or $(CARBON),conserved kills flips)

#: make progress  10^5 seeded mixes of up to 32 slaves on a line: is each asked within the bound that check prints?
progress: build
	@$(PY) tests/fuzz/run_progress.py

#: make fuzz      10^7 executions of each parser under sanitizers (clang's libFuzzer)
fuzz: build
	@$(PY) tests/fuzz/run_storm.py
	@$(PY) tests/fuzz/run_tcp_storm.py
	@$(PY) tests/fuzz/fuzz_console.py --lines 10000000
	@tests/fuzz/run.sh -n 10000000 || { status=$$?; [ $$status -eq 77 ] && echo "fuzz: skipped"; }

#: make test-vm   the CAN and serial code on a PREEMPT_RT kernel with real drivers, under QEMU
# 77: a program is missing here, and the script has said which.
test-vm: build
	@tests/vm/run-vm.sh -t 900 -- $(PY) -m pytest -q --color=no -p no:cacheprovider tests/vm || \
	    { status=$$?; [ $$status -eq 77 ] && echo "test-vm: skipped"; }

#: make arm       the same seeds under qemu-user on aarch64 and 32-bit ARM, with both widths of time: the same bytes as here?
# SEEDS=1000 for a night; KINDS=arm64 for one of arm64, armhf, armhf-time64. Built by Debian's cross compilers in build/arm.
arm: build
	@$(PY) tests/tools/arm.py --seeds $(or $(SEEDS),30) $(if $(KINDS),--kinds $(KINDS)) || \
	    { status=$$?; [ $$status -eq 77 ] && echo "arm: skipped"; }

#: make build     the compiled core, in place
build: setup
	@echo "== compiled core"
	@$(PY) setup.py -q build_ext --inplace -j $$(nproc)

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@PYTHON=$(PYTHON) VENV=$(VENV) sh tests/tools/setup.sh
	@touch $@

lint: build
	@echo "== ruff, mypy, import-linter"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo --cache-dir build/import-linter >build/import-linter.log || \
	    { cat build/import-linter.log; exit 1; }

#: make pxd       the extern blocks of the .pxd files, made anew from the headers
pxd: setup
	@$(PY) tests/tools/pxd.py

#: make lint-cython  cython-lint over ext/; what it finds is listed, and make lint does not wait for it yet
lint-cython: setup
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/cython-lint ext tests/fuzz

#: make prove     the safety gate's contracts, and faults planted in it (frama-c-base, why3, z3)
prove: build
	@tests/proof/prove.sh
	@$(PY) tests/proof/planted.py

#: make mutants   every slip of a pen in the safety gate and in each number of its fault table: do the tests notice?
mutants: build
	@$(PY) tests/mutants/run.py

#: make models    what runs side by side, in every state (spin) and under the thread sanitizer, with planted faults
models: setup
	@$(PY) tests/models/run.py || { status=$$?; [ $$status -eq 77 ] && echo "models: skipped"; }
	@$(PY) tests/models/borders.py

#: make constraints  write constraints.txt anew: the versions that CI, the .deb and make setup install
constraints:
	@PYTHON=$(PYTHON) sh tests/tools/constraints.sh

#: make test-newest  make test with the newest versions that pyproject.toml allows, in an environment of its own
test-newest:
	@VENV=build/newest PYTHON=$(PYTHON) NEWEST=1 sh tests/tools/setup.sh
	@touch build/newest/.installed
	@$(MAKE) test VENV=build/newest

#: make wheel     sdist and wheel in dist/
wheel: setup
	@$(PY) -m build --outdir dist .

#: make wheels    wheels in dist/ for x86-64 and aarch64, each named after the C library that it runs with
wheels: build
	@$(PY) packaging/cross.py wheel here
	@$(PY) packaging/cross.py wheel arm64

#: make layer     oelint-adv over the Yocto layer packaging/meta-tidegate, in an environment of its own (build/oelint)
layer:
	@[ -x build/oelint/bin/oelint-adv ] || { $(PYTHON) -m venv build/oelint && \
	    build/oelint/bin/python -m pip install -q --disable-pip-version-check oelint-adv; }
	@tests/packaging/layer.sh && echo "layer: good"

#: make deb       the Debian package in dist/ (REUSE=1: of the modules that are built already; ARCH=arm64: for such a board)
deb: build
	@packaging/deb.sh
	@[ "$(ARCH)" != arm64 ] || [ "$$(dpkg --print-architecture)" = arm64 ] || tests/packaging/arm_deb.sh dist/tidegate_*_arm64.deb

#: make reproduce wheel and Debian package built twice, in two folders: the same bytes? (REUSE=1: only the packing)
reproduce: build
	@packaging/reproduce.sh

#: make advisories  is something known against what is pinned? (OSV=EXPORT: first take a new snapshot of an OSV export)
advisories:
	@[ -z "$(OSV)" ] || python3 packaging/advisories.py take "$(OSV)"
	@python3 packaging/advisories.py check

#: make clean     remove everything that was built
clean:
	rm -rf build dist *.egg-info $(VENV)
	find ext -name '*.so' -delete
	find ext -name '*.c' ! -name 'safety.c' -delete
