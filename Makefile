# Two commands for a newcomer: `make up` and `make test`. Both first install what is missing.

NODES ?= 1
SEEDS ?= 200
TARGET := x86_64-unknown-linux-gnu
SKIFF  := target/$(TARGET)/release/skiff

.PHONY: up down build test sim lint prepare

## Build and run a cluster in the foreground: `make up NODES=3` for three nodes.
up: build
	$(SKIFF) up --nodes $(NODES)

## Stop the cluster and remove what it left running.
down: build
	$(SKIFF) down

build: prepare
	cargo build --release --locked -p skiff-ctl

## Every test, real containers included.
test: prepare
	scripts/test

## The whole control plane on virtual time, with faults: `make sim SEEDS=1000`.
sim: prepare
	cargo run --release --locked -q -p skiff-e2e --bin sim -- --seeds $(SEEDS)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

prepare:
	@scripts/prepare
