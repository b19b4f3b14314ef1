# Two commands do everything on a fresh Debian 12 with root, Rust and Go: `make demo` and `make test`.
# What is slow to build (Kubernetes) is cached in $SNIFF_CACHE (default /var/cache/kubectl-sniff), keyed by version.

CLUSTER := tests/cluster/cluster

.PHONY: all demo test check fuzz image dist bench soak clean-cluster setup help

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

all: image ## Build the plugin and the agent image
	cargo build --release

setup: ## Install the packages that building and testing need
	tests/setup

image: setup ## Write target/sniff-agent.oci.tar (amd64 and arm64), without Docker
	image/build

demo: setup image ## Start a cluster with a small shop in it and sniff its traffic
	cargo build --release
	tests/demo

test: setup image ## Run all tests, those on a real cluster included
	$(CLUSTER) up
	cargo test
	cargo test --no-default-features --features libpcap --lib

check: ## Format and lint
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features --features engine --lib -- -D warnings
	cargo clippy --no-default-features --features agent --bin sniff-agent -- -D warnings
	cargo clippy --no-default-features --features tls --bin sniff-agent -- -D warnings
	cargo clippy --no-default-features --features libpcap --lib --tests -- -D warnings

fuzz: ## Fuzz all dissectors, link layers and file formats, each for SECONDS (default 60; needs nightly Rust)
	tests/fuzz/run $(SECONDS)

bench: setup image ## Print speed and memory beside tshark, tcpdump, dumpcap and kubectl debug (SIZE=20 for a short run)
	cargo build --release
	tests/bench/run

soak: setup image ## Sniff for half an hour and look whether anything grows or gets lost (SECONDS=60 for a short run)
	cargo build --release
	tests/bench/soak

dist: setup image ## Write the krew archive and manifest to target/dist
	krew/build

clean-cluster: ## Stop the test cluster and remove all that it made
	$(CLUSTER) down
