# The everyday commands. `make` alone lists them.
#
#   ELEPHANT_WORKSPACE, ELEPHANT_BIND   what `make serve` serves, and where
#   ELEPHANT_CACHE                      where libtorch, CMake and the benchmarks' Python are kept for all clones
#   ELEPHANT_SERVICES_PORT              first of the four ports of `make services` (28600)
#   ELEPHANT_PEER_PYTHON                a Python to compare with in `make bench` (or `make peers` once)

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup build serve test bench pretrained peers services services-stop
MAKEFLAGS += --no-print-directory

export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

ELEPHANT_WORKSPACE ?= ./workspace
ELEPHANT_BIND ?= 127.0.0.1:8080
ELEPHANT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/elephant-server
ELEPHANT_PEER_PYTHON ?= $(wildcard $(ELEPHANT_CACHE)/peers/ready/python)
TARGET := $(or $(CARGO_TARGET_DIR),target)

# The set-up's choice of libraries, from the command line only: 1 with CUDA, 0 without, empty as it is.
CUDA :=

help: ## list these commands
	@echo 'elephant-server: the server behind interactive 3-D cell tracking. With Rust installed, start with:  make serve'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## get what is missing: system packages, libtorch, CMake (CUDA=1: the CUDA libraries too, CUDA=0: back)
	@ELEPHANT_CACHE='$(ELEPHANT_CACHE)' CUDA='$(CUDA)' scripts/setup.sh

build: setup ## set up, and build target/release/elephant-server
	@echo 'build: elephant-server, optimised$(if $(wildcard $(TARGET)/release/elephant-server),, (the first time takes some minutes))'
	@cargo build --quiet --release

serve: build ## set up, build, prepare a demo dataset in an empty workspace, and serve on 127.0.0.1:8080
	@echo 'serve: $(ELEPHANT_WORKSPACE) on http://$(ELEPHANT_BIND)'
	@exec '$(TARGET)/release/elephant-server' serve --workspace '$(ELEPHANT_WORKSPACE)' --bind '$(ELEPHANT_BIND)' --demo

test: setup ## set up, start Redis and RabbitMQ (make services), and run all tests
	@echo 'test: building$(if $(wildcard $(TARGET)/debug/deps),, (the first time takes about ten minutes))'
	@cargo test --quiet --workspace --no-run
	@echo 'test: running'
	@addresses=$$(ELEPHANT_CACHE='$(ELEPHANT_CACHE)' scripts/services.sh start) && eval "$$addresses" && \
		cargo test --quiet --workspace --no-fail-fast

services: ## start Redis and RabbitMQ for the tests, on ports of their own, and print their addresses
	@ELEPHANT_CACHE='$(ELEPHANT_CACHE)' scripts/services.sh start

services-stop: ## stop them
	@ELEPHANT_CACHE='$(ELEPHANT_CACHE)' scripts/services.sh stop

bench: setup ## run every benchmark, beside Python's where `make peers` was run
	@echo 'bench: building and running; peer: $(or $(ELEPHANT_PEER_PYTHON),none (make peers))'
	@$(if $(ELEPHANT_PEER_PYTHON),ELEPHANT_PEER_PYTHON='$(ELEPHANT_PEER_PYTHON)') cargo bench --quiet --workspace --bench '*'

pretrained: build ## train the built-in networks again, from seeds alone (more than an hour on two cores; goes on where it was interrupted)
	@'$(TARGET)/release/elephant-server' pretrain models/nuclei-3d.pth --dims 3d --steps 4000
	@'$(TARGET)/release/elephant-server' pretrain models/nuclei-2d.pth --dims 2d --steps 1500

peers: ## get the Python programs that `make bench` compares with, into the cache folder
	@ELEPHANT_CACHE='$(ELEPHANT_CACHE)' scripts/peers.sh
