# The everyday commands. `make` alone lists them.
#
#   ELEPHANT_WORKSPACE, ELEPHANT_BIND   folder that `make serve` serves, and the address
#   ELEPHANT_CACHE                      folder for libtorch, CMake and the benchmarks' Python, shared by all clones
#   ELEPHANT_SERVICES_PORT              first of the four ports of `make services` (28600)
#   ELEPHANT_PEER_PYTHON                Python to compare with in `make bench` (default: that of `make peers`)

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup build serve test bench bench-zarrs fuzz pretrained peers services services-stop
MAKEFLAGS += --no-print-directory

export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

ELEPHANT_WORKSPACE ?= ./workspace
ELEPHANT_BIND ?= 127.0.0.1:8080
ELEPHANT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/elephant-server
ELEPHANT_PEER_PYTHON ?= $(wildcard $(ELEPHANT_CACHE)/peers/ready/python)
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Which libtorch `make setup` links, from the command line only: 1 with CUDA, 0 without, empty: no change.
CUDA :=

help: ## list these commands
	@echo 'elephant-server: the server behind interactive 3-D cell tracking. With Rust installed, start with:  make serve'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing: system packages, libtorch, CMake, libclang (CUDA=1: with CUDA libraries, CUDA=0: without)
	@ELEPHANT_CACHE='$(ELEPHANT_CACHE)' CUDA='$(CUDA)' scripts/setup.sh

build: setup ## set up, and build target/release/elephant-server
	@echo 'build: elephant-server, optimised$(if $(wildcard $(TARGET)/release/elephant-server),, (the first time takes some minutes))'
	@cargo build --quiet --release

serve: build ## set up, build, create a demo dataset if the workspace is empty, and serve on 127.0.0.1:8080
	@echo 'serve: $(ELEPHANT_WORKSPACE) on http://$(ELEPHANT_BIND)'
	@exec '$(TARGET)/release/elephant-server' serve --workspace '$(ELEPHANT_WORKSPACE)' --bind '$(ELEPHANT_BIND)' --demo

test: setup ## set up, start Redis and RabbitMQ (make services), run all tests, and name those that were skipped
	@echo 'test: building$(if $(wildcard $(TARGET)/debug/deps),, (the first time takes about ten minutes))'
	@cargo test --quiet --workspace --no-run
	@echo 'test: running'
	@ELEPHANT_CACHE='$(ELEPHANT_CACHE)' scripts/test.sh

services: ## start Redis and RabbitMQ for the tests, on separate ports, and print their addresses
	@ELEPHANT_CACHE='$(ELEPHANT_CACHE)' scripts/services.sh start

services-stop: ## stop the Redis and RabbitMQ of make services
	@ELEPHANT_CACHE='$(ELEPHANT_CACHE)' scripts/services.sh stop

bench: setup ## run every benchmark, with its Python peer if `make peers` was run
	@echo 'bench: building and running; peer: $(or $(ELEPHANT_PEER_PYTHON),none (make peers))'
	@$(if $(ELEPHANT_PEER_PYTHON),ELEPHANT_PEER_PYTHON='$(ELEPHANT_PEER_PYTHON)') cargo bench --quiet --workspace --bench '*'

bench-zarrs: ## write and read frames with our stores and with the zarrs crate, in turns
	@cargo run --quiet --release --manifest-path benches/peers/zarrs/Cargo.toml --target-dir '$(TARGET)/bench-zarrs'

fuzz: setup ## feed damaged files to the readers, with AddressSanitizer in the C libraries, FUZZ_SECONDS (60) each
	@fuzz/run

pretrained: build ## train the built-in networks again, from seeds alone (over an hour on two cores; resumes after an interruption)
	@'$(TARGET)/release/elephant-server' pretrain models/nuclei-3d.pth --dims 3d --steps 4000
	@'$(TARGET)/release/elephant-server' pretrain models/nuclei-2d.pth --dims 2d --steps 1500
	@'$(TARGET)/release/elephant-server' pretrain models/flow-3d.pth --network flow --steps 2500
	@'$(TARGET)/release/elephant-server' pretrain models/flow-2d.pth --network flow --dims 2d --steps 3000

peers: ## install the Python programs that `make bench` compares with, into the cache folder
	@ELEPHANT_CACHE='$(ELEPHANT_CACHE)' scripts/peers.sh
