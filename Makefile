# The doors to the project. Every target installs what it needs (Debian packages as root); make and bash are enough to begin.
.PHONY: build lint audit test-unit test-e2e test-bulk test-firecracker test bench bench-boot bench-exec bench-network fuzz demo generate clean

build:
	@scripts/build.sh

lint:
	@scripts/lint.sh

audit:
	@scripts/audit.sh

test-unit:
	@scripts/test-unit.sh

test-e2e:
	@scripts/test-e2e.sh

test-bulk:
	@scripts/test-bulk.sh

test-firecracker:
	@scripts/test-firecracker.sh

test:
	@$(MAKE) --no-print-directory test-unit
	@$(MAKE) --no-print-directory test-e2e
	@$(MAKE) --no-print-directory test-firecracker

fuzz:
	@scripts/fuzz.sh

bench:
	@scripts/bench.sh

bench-boot:
	@scripts/bench-boot.sh

bench-exec:
	@scripts/bench-exec.sh

bench-network:
	@scripts/bench-network.sh

demo:
	@example/test.sh

generate:
	@scripts/generate.sh

clean:
	rm -rf dist target
