# `make` lists the targets. Everything can be overridden: make par REVISION=7 VENDOR=acme

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

NAME     ?= NATS replicated key-value cache
VENDOR   ?= nats-kvcache
VERSION  ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Hosts cache archives by provider key and revision: a build that is to be started needs a revision of its own.
REVISION ?= $(shell git rev-list --count HEAD 2>/dev/null || echo 0)
# The provider of wasmbus hosts (0.5x to 0.8x), or with HOST=0.18 the plugin of hosts of that line.
HOST     ?=
OCI_REF  ?= localhost:5000/nats-kvcache:$(VERSION)$(if $(HOST),-host-$(HOST))
# Plain http; xtask does so by itself with a registry on this machine, wash has to be told.
INSECURE ?= $(filter localhost:% 127.0.0.1:%,$(OCI_REF))

LATTICE_PREFIX ?= default
LINK_NAME      ?= default
CTL_HOST       ?= 127.0.0.1
CTL_PORT       ?= 4222
# A file with the provider's configuration, see docs/CONFIGURATION.md.
CONFIG_JSON    ?=

# What `make archive` packs, and the archive.
ifeq ($(HOST),)
BINARY := target/release/nats-kvcache
PAR    := build/nats-kvcache.par.gz
else ifeq ($(HOST),0.18)
BINARY := target/plugin-0.18/release/libnats_kvcache_plugin.so
PAR    := build/nats-kvcache-host-0.18.par.gz
else
$(error HOST=$(HOST): expected nothing, for hosts 0.5x to 0.8x, or 0.18)
endif
TARGET := $(shell echo "$$(uname -m)-$$(uname -s)" | sed 's/Linux/linux/; s/Darwin/macos/; s/^arm64/aarch64/')
XTASK  := cargo run --locked --quiet -p xtask --
# Only the wash of this generation (0.2x) makes archives for a contract, and starts providers under a link name; later
# ones have other flags, or no `par` at all. Among those of this generation, the older ones know `reg push` and
# `ctl start` alone, and the newer ones call these deprecated.
HAS_WASH  := wash par create --help 2>/dev/null | grep -e --capid >/dev/null
HAS_PUSH  := wash push --help >/dev/null 2>&1
HAS_START := wash start provider --help 2>/dev/null | grep -e --link-name >/dev/null
HAS_CTL   := wash ctl start provider --help >/dev/null 2>&1

.PHONY: help build test test-real-host sim mutations faults store-outage run par archive inspect push start clean lint fmt doc \
  bench bench-quick bench-store bench-instructions bench-lattice-cache bench-micro sanitize

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-18s  %s\n", $$1, $$2 }'

build: ## Build the provider (target/release/nats-kvcache), or with HOST=0.18 the plugin
ifeq ($(HOST),)
	cargo build --release --locked
else
	cargo build --release --locked --manifest-path hosts/plugin-0-18/Cargo.toml --target-dir target/plugin-0.18
endif

test: ## Install the servers that tests need, run all tests, count the skipped ones
	@scripts/run-tests.sh

test-real-host: ## Start the provider on a real host with a real wash (HOST_BIN=/path/to/wasmcloud, 0.8x)
	@test -x "$(HOST_BIN)" || { echo 'HOST_BIN="$(HOST_BIN)": expected the program of a wasmCloud host 0.8x, as in' \
	  'make test-real-host HOST_BIN=/path/to/wasmcloud' >&2; exit 2; }
	@scripts/install-tools.sh nats-server docker-registry wash
	HOST_BIN="$(abspath $(HOST_BIN))" cargo test --locked --test real_host -- --ignored --nocapture

faults: ## Faults of all kinds for SECONDS (default 600), then all nodes must be equal (SEED=n plans the same again)
	@scripts/install-tools.sh nats-server libfaketime redis
	FAULTS_SECONDS=$(or $(SECONDS),600) FAULTS_SEED=$(SEED) \
	  cargo test --locked --test faults -- --nocapture random_faults

store-outage: ## A store (Redis) that is away for SECONDS (default 3600) under load, then made equal
	@scripts/install-tools.sh nats-server redis
	OUTAGE_SECONDS=$(or $(SECONDS),3600) \
	  cargo test --locked --test stores -- --nocapture a_store_that_is_away_for_long

# Provider and demonstration in one build, of a profile that is not linked for minutes.
DEMO := target/demo
run: ## Show a dev lattice of three nodes (STORE=file: killed at once, and back with everything; KEEP=1: left running)
	@echo '1. The nats-server: one of at least 2.10 on PATH, or a pinned one that is put into .tools/'
	@scripts/install-tools.sh nats-server
	@echo '2. Building the provider and the demonstration, together: some two minutes the first time, later seconds'
	cargo build --locked --profile demo -p nats-kvcache -p xtask
	@echo '3. The demonstration: three providers on a server of their own, for some ten seconds'
	@$(DEMO)/xtask dev-lattice --binary $(DEMO)/nats-kvcache $(if $(KEEP),--keep) $(if $(STORE),--store '$(STORE)')

N ?= 20000
sim: ## Simulate N clusters on a hostile network (N=20000), or replay one of them (SEED=n); STORES=1 for those with stores
	cargo run --locked --profile sim -p sim -- $(if $(SEED),--seed $(SEED),--runs $(N)) $(if $(STORES),--stores)

mutations: ## Break the code in known ways and see that the checks notice (ONLY="names" for some of them)
	@scripts/mutations.sh $(ONLY)

sanitize: ## Run the tests of the code with `unsafe` under AddressSanitizer, about a minute after a build of another
	@scripts/sanitize.sh

comma := ,
ONLY_SECTIONS := $(if $(ONLY),--only $(ONLY))
BENCH := cargo run --locked --release --quiet -p bench --
# Section 15 measures beside engines that take minutes to install. What cannot be installed is named, and not measured.
ENGINES := $(if $(ONLY),$(filter 15,$(subst $(comma), ,$(ONLY))),15)
INSTALL_ENGINES := for engine in cassandra consul; do \
  scripts/install-tools.sh $$engine || echo "*** SKIPPED: $$engine as a store is not measured" >&2; done
bench: par ## Measure everything beside baselines: table, JSON and charts in target/bench (ONLY=1,2 for some sections)
	@scripts/install-tools.sh nats-server redis valkey
	@$(if $(ENGINES),$(INSTALL_ENGINES))
	cargo build --release --locked -p bench
	$(BENCH) $(ONLY_SECTIONS)

bench-quick: par ## The same with fewer and shorter runs
	@scripts/install-tools.sh nats-server redis valkey
	@$(if $(ENGINES),$(INSTALL_ENGINES))
	cargo build --release --locked -p bench
	$(BENCH) --quick $(ONLY_SECTIONS)

bench-store: ## Store the last run in docs/bench, and write docs/PERFORMANCE.md and README's figures from it
	@test -e target/bench/run.json || { echo 'no run in target/bench; make bench makes one' >&2; exit 1; }
	@mkdir -p docs/bench
	cp target/bench/run.json docs/bench/
	cargo run --locked --release --quiet -p bench -- docs

# JSON goes through a file: in a pipe, a benchmark that fails would be reported as one that is missing.
bench-instructions: ## Count the instructions of the hot paths and compare with those stored (BLESS=1 stores them)
	@scripts/install-tools.sh gungraun
	@mkdir -p target/bench
	GUNGRAUN_RUNNER=$(CURDIR)/.tools/gungraun/bin/gungraun-runner \
	  cargo bench --locked -p kvcache-core --bench instructions -- --output-format=json >target/bench/instructions.jsonl
	@cargo run --locked --quiet -p bench -- instructions $(if $(BLESS),--bless) <target/bench/instructions.jsonl

bench-lattice-cache: ## Measure the plugin of hosts 0.18 beside the classic one, in real hosts; writes the tables of docs/WHY.md
	@scripts/install-tools.sh nats-server docker-registry host-0.18
	@$(MAKE) --no-print-directory par HOST=0.18
	$(BENCH) lattice-cache --write

bench-micro: ## Time the hot paths of one node, each alone (criterion)
	cargo bench --locked -p kvcache-core --bench cache

par: build ## Write the provider archive build/nats-kvcache.par.gz (NAME, VENDOR, VERSION, REVISION, HOST=0.18)
	@$(MAKE) --no-print-directory archive HOST=$(HOST)

archive: ## The same, but of a BINARY that is there already (BINARY, PAR)
	@mkdir -p "$(dir $(PAR))"
	@if $(HAS_WASH); then set -x; \
	  wash par create --capid wasmcloud:keyvalue --name "$(NAME)" --vendor "$(VENDOR)" --version "$(VERSION)" \
	    --revision "$(REVISION)" --arch "$(TARGET)" --binary $(BINARY) --destination $(PAR) --compress; \
	else set -x; \
	  $(XTASK) par create --name "$(NAME)" --vendor "$(VENDOR)" --version "$(VERSION)" --revision "$(REVISION)" \
	    --bin $(BINARY) --out $(PAR); \
	fi

$(PAR):
	@$(MAKE) --no-print-directory par HOST=$(HOST)

inspect: $(PAR) ## Check the archive and show its claims
	@$(XTASK) par inspect $(PAR)

push: $(PAR) ## Send the archive to OCI_REF (default localhost:5000/nats-kvcache:VERSION; HOST=0.18)
	@if $(HAS_WASH) && $(HAS_PUSH); then set -x; \
	  wash push "$(OCI_REF)" $(PAR) $(if $(INSECURE),--insecure); \
	elif $(HAS_WASH); then set -x; \
	  wash reg push "$(OCI_REF)" $(PAR) $(if $(INSECURE),--insecure); \
	else set -x; \
	  $(XTASK) par push --file $(PAR) --ref "$(OCI_REF)" $(if $(INSECURE),--insecure); \
	fi

START := provider $(OCI_REF) --lattice-prefix $(LATTICE_PREFIX) --link-name $(LINK_NAME) \
  --ctl-host $(CTL_HOST) --ctl-port $(CTL_PORT) --timeout-ms 30000 $(if $(CONFIG_JSON),--config-json $(CONFIG_JSON))

start: ## Start OCI_REF on a host of a dev lattice with wash (LATTICE_PREFIX, LINK_NAME, CTL_HOST, CTL_PORT, CONFIG_JSON)
	@if $(HAS_START); then set -x; \
	  wash start $(START); \
	elif $(HAS_CTL); then set -x; \
	  wash ctl start $(START); \
	else \
	  echo 'wash start $(strip $(START))'; \
	  echo; \
	  echo 'No wash of the 0.2x generation is on PATH, so nothing was started. This builds one, in some five minutes:'; \
	  echo; \
	  echo '    scripts/install-tools.sh wash && export PATH="$$PWD/.tools/wash/bin:$$PATH"'; \
	  echo; \
	  echo 'Then start a host that may fetch from your registry, e.g.'; \
	  echo 'WASMCLOUD_OCI_ALLOWED_INSECURE=localhost:5000 wash up, and run make start again, or the line above on a'; \
	  echo 'machine that has such a wash.'; \
	  exit 1; \
	fi

lint: ## Formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo fmt --manifest-path hosts/plugin-0-18/Cargo.toml --check
	cargo fmt --manifest-path hosts/plugin-0-18/host/Cargo.toml --check
	cargo clippy --manifest-path hosts/plugin-0-18/Cargo.toml --target-dir target/plugin-0.18 --all-targets --locked \
	  -- -D warnings

fmt: ## Format the sources
	cargo fmt --all
	cargo fmt --manifest-path hosts/plugin-0-18/Cargo.toml
	cargo fmt --manifest-path hosts/plugin-0-18/host/Cargo.toml

doc: ## Build the API documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --workspace

clean: ## Remove what was built (the servers in .tools/ stay)
	cargo clean
	rm -rf build
