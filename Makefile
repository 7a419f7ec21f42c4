# What can be done with this checkout. `make` alone tells.

SHELL := /bin/bash
CARGO ?= cargo

# What is listed first must be done first, with -j as well: nothing builds before the set-up.
.NOTPARALLEL:

.PHONY: help
help: ## Tell what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: setup
setup: ## Install what demo and tests need (Debian packages, a MySQL package, Hadoop, an S3 server); needs root or sudo
	@scripts/setup

.PHONY: setup-demo
setup-demo: # Less than setup: no MySQL package, no Hadoop and no S3 server.
	@scripts/setup --for-demo

.PHONY: release
release: ## Build the optimised binary, target/release/cotton
	$(CARGO) build --release --bin cotton

.PHONY: demo
demo: setup-demo release ## Run a whole Mesos, ZooKeeper and Cotton here, and a cluster on it
	@scripts/demo

.PHONY: demo-check
demo-check: setup-demo release ## The same unattended: create, write, read, kill the master, write again, delete
	@scripts/demo --check

.PHONY: lint
lint: ## Formatting, clippy and documentation, without a single warning
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

# Three at a time also on two cores: most of them wait for servers.
.PHONY: test
test: setup lint ## Everything that must hold: lint, unit and integration tests on real servers
	RUST_TEST_THREADS=$(or $(RUST_TEST_THREADS),3) $(CARGO) test

.PHONY: soak
soak: setup ## Break and change things by chance under load, and compare: MINUTES=30, CLUSTERS=2 of each flavour, SEED=n
	MINUTES=$(or $(MINUTES),30) CLUSTERS=$(or $(CLUSTERS),2) $(if $(SEED),SEED=$(SEED)) \
		$(CARGO) test --test e2e soak::soak -- --ignored --nocapture

.PHONY: restarts
restarts: setup ## Kill the scheduler a hundred times while clusters are created, fail over and are deleted: SEED=n
	$(if $(SEED),SEED=$(SEED)) $(CARGO) test --test e2e hundred_restarts -- --ignored --nocapture

SEEDS ?= 0..20000

# The dependencies as the tests have them, and this crate with some optimisation: soon built, and four times as fast.
SIM = $(CARGO) test --config 'profile.test.package.cotton.opt-level=1' --lib -- --ignored --nocapture

.PHONY: sim
sim: ## Play simulated histories: SEEDS=from..to on all cores, or one seed with all that happens in it; FAMILY=name
	SEEDS=$(SEEDS) $(SIM) simulation::run::many_seeds

.PHONY: sim-rules
sim-rules: ## Break each rule of failover on purpose, and show that the simulation finds the harm
	$(SIM) simulation::mutations

.PHONY: bench
bench: setup release ## Measure; prints ratios taken in one run
	@scripts/bench

# Advisories are left out: their database is fetched from GitHub, which not every machine reaches.
.PHONY: deny
deny: ## Licences, bans and sources of the dependencies (needs cargo-deny: cargo install --locked cargo-deny)
	$(CARGO) deny check bans licenses sources
