# make demo    see it work: both chips built, flashed, booted and diagnosed on virtual glasses
# make test    every test
# make test-vm the virtual AR1 behind a real Linux USB stack, in QEMU
# make check   what must hold before a commit: lint, types, layers, format, tests
# make bench   all measurements; make bench-AREA for one of them
# make fuzz    every decoder under coverage-guided fuzzing, FUZZ_S seconds each
# make soak    a rig of virtual glasses through random faults; SEED=1 CYCLES=300
# make gen     C headers and wire bytes of vectors, from protocols/
# make kernel  Debian's arm64 cloud kernel for the virtual AR1, without touching this system's packages
# make docs    docs/benchmarks.md from the last bench
PYTHON := build/venv/bin/python
QUARKCTL := build/venv/bin/quarkctl
C_SOURCES := $(shell find firmware -name '*.[ch]' -not -path '*/wire/*')
AREAS := cli rtos-flash serial telemetry bundle ar1-images ar1-flash diag rigs

.PHONY: demo test test-vm check lint format bench $(AREAS:%=bench-%) fuzz soak gen kernel docs clean run-tools test-tools

demo: kernel
	@./demo.sh $(QUARKCTL)

test: test-tools
	$(PYTHON) -m pytest -n 2 --dist worksteal

# The virtual AR1 behind a real Linux USB stack, in QEMU. The kernel (70 MB) is fetched once.
test-vm: test-tools
	@./setup.sh vm
	$(PYTHON) -m pytest tests/vm/linux_usb.py

check: lint test

lint: test-tools
	$(PYTHON) -m ruff check quarkctl tests
	$(PYTHON) -m ruff format --check quarkctl tests
	$(PYTHON) -m mypy
	build/venv/bin/lint-imports
	build/venv/bin/clang-format --dry-run -Werror $(C_SOURCES)

format: test-tools
	$(PYTHON) -m ruff check --fix-only quarkctl tests
	$(PYTHON) -m ruff format quarkctl tests
	build/venv/bin/clang-format -i $(C_SOURCES)

bench: $(AREAS:%=bench-%) docs

$(AREAS:%=bench-%): bench-%: test-tools
	$(PYTHON) -m tests.bench $*

# atheris is for this alone and is a large wheel: installed when it is wanted.
FUZZ_S ?= 20
fuzz: test-tools
	@$(PYTHON) -c 'import atheris' 2>/dev/null || $(PYTHON) -m pip install --quiet 'atheris>=2.3'
	@for target in $$($(PYTHON) -m tests.fuzz); do \
		mkdir -p build/fuzz/$$target && \
		$(PYTHON) -m tests.fuzz $$target -max_total_time=$(FUZZ_S) -max_len=4096 -rss_limit_mb=1024 -timeout=10 \
			-print_final_stats=1 -verbosity=0 -artifact_prefix=build/fuzz/$$target/ build/fuzz/$$target || exit 1; \
	done

SEED ?= 1
CYCLES ?= 300

soak: test-tools
	$(PYTHON) -m tests.rig.soak --cycles $(CYCLES) --seed $(SEED)

gen: test-tools
	$(PYTHON) -m quarkctl.build.headers firmware/rtos/wire
	$(PYTHON) -m tests.formats.frame_vectors

docs: test-tools
	$(PYTHON) -m tests.bench.table
	$(PYTHON) -m tests.diag.page

kernel: run-tools
	@$(PYTHON) -m quarkctl.build.ar1.kernel

run-tools:
	@./setup.sh run

test-tools:
	@./setup.sh test

clean:
	rm -rf build
