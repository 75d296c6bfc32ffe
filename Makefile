# What people type. Everything that is missing is installed into .tools/ first, by tests/setup/install.

.PHONY: help test scenarios demo lint setup bench bench-instructions scale soak

help:
	@echo "make test    all tests, on real servers and drivers"
	@echo "make scenarios  every fault on every driver, judged, healthy changes at least 20 times; an hour (ONLY SHAPES RUNS HEALTHY_RUNS JOBS KEEP)"
	@echo "make demo    a minute of poolscope between five services and a real mongod"
	@echo "make lint    formatting, clippy and documentation, without any warning"
	@echo "make setup   only install what tests and demo run on"
	@echo
	@echo "make bench                beside HAProxy, nginx, Envoy and no proxy; 15 minutes (ROUNDS SECONDS ONLY SCENARIO)"
	@echo "make soak                 5,000 connections of 500 instances for ten minutes, watched (MINUTES MAX_CLIENTS)"
	@echo "make scale                what it costs by size, and what a fleet means for Prometheus; eight minutes"
	@echo "make bench-instructions   what looking costs in instructions; fails when it is 5 % more than agreed"

setup:
	@tests/setup/install

# cargo-nextest gives each test its own process and a limit of time; where it is not, cargo's own runner will do.
test: setup
	@tests/setup/run-tests

# What it found is in target/scenarios/summary.md, and with README=1 in the README. Cases of lost packets take root.
scenarios: setup
	@cargo test --locked --test it -- --ignored --exact scenarios::matrix --nocapture

demo:
	@tests/setup/install mongod python node rust-driver
	@[ -x target/release/poolscope ] || echo "setup: poolscope: building (some minutes, once)" >&2
	@cargo build --quiet --release --locked
	@tests/demo/run

bench:
	@tests/setup/install haproxy nginx envoy
	@benches/compare/run $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(ONLY),--only '$(ONLY)') $(if $(SCENARIO),--scenario '$(SCENARIO)')

scale:
	@benches/scale/run

soak:
	@benches/soak/run $(if $(MINUTES),--minutes $(MINUTES)) $(if $(MAX_CLIENTS),--max-clients $(MAX_CLIENTS))

bench-instructions:
	@tests/setup/install valgrind
	cargo bench --locked --bench instructions

lint:
	cargo fmt --check
	cargo fmt --check --manifest-path tests/drivers/rust/Cargo.toml
	cargo fmt --check --manifest-path benches/compare/wireload/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --manifest-path tests/drivers/rust/Cargo.toml --target-dir target/drivers -- -D warnings
	cargo clippy --locked --manifest-path benches/compare/wireload/Cargo.toml --target-dir target/wireload --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
