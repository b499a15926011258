.DEFAULT_GOAL := help
.PHONY: help demo test conformance bench attack soak fuzz image e2e crds docs cluster-up cluster-down kubectl helm prepare

# The test harness as a program; cargo is quick to see that it is built.
cluster := cargo run --quiet --package rehome-testing --bin cluster --

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: prepare ## Show it all in one run; KEEP=1 leaves everything on until Ctrl-C
	@cargo build --locked --workspace --bins
	@"$${CARGO_TARGET_DIR:-target}/debug/demo" $(if $(KEEP),--keep)

test: prepare ## Check format and lints and run every test on a real control plane
	@tests/run

conformance: prepare ## Run unmodified official SDKs; WRITE=1 writes docs/conformance.md, ONLY=java runs a part
	@tests/prepare-conformance
	@cargo build --locked --workspace --bins
	@"$${CARGO_TARGET_DIR:-target}/debug/conformance" $(if $(WRITE),--write) $(if $(ONLY),--only $(ONLY))

bench: prepare ## Compare registrations, moves and polls with raw loops, in a release build; ARGS=scale says what they take
	@cargo build --locked --release --package rehome --package rehome-testing --bin rehome --bin bench
	@"$${CARGO_TARGET_DIR:-target}/release/bench" $(ARGS)

attack: prepare ## Attack a gateway in every way that we know, in a release build, and judge the cost
	@cargo build --locked --release --package rehome --package rehome-testing --bin rehome --bin attack
	@"$${CARGO_TARGET_DIR:-target}/release/attack" $(ARGS)

soak: prepare ## Let 2,000 devices live on all of it for ten minutes, in a release build, and lose none
	@tests/prepare-conformance
	@cargo build --locked --release --package rehome --package rehome-testing --bin rehome --bin soak
	@"$${CARGO_TARGET_DIR:-target}/release/soak" $(ARGS)

fuzz: prepare ## Fuzz each parser under libFuzzer: make fuzz SECONDS_EACH=600 TARGETS="http sas"
	@tests/fuzz.sh $(or $(SECONDS_EACH),60) $(TARGETS)

image: prepare ## Build the image as an OCI archive, target/image/rehome.tar, without Docker
	@tests/image $(ARGS)

e2e: prepare ## Install the chart on a node with real pods, as root; ONLY=geo runs a part, CLUSTER=kind on kind
	@tests/prepare-e2e $(CLUSTER)
	@tests/older-image
	@tests/image
	@cargo build --locked --package rehome-testing --bin e2e
	@"$${CARGO_TARGET_DIR:-target}/debug/e2e" $(if $(CLUSTER),--cluster $(CLUSTER)) \
	  $(if $(KUBERNETES),--kubernetes $(KUBERNETES)) $(if $(ONLY),--only $(ONLY)) $(ARGS)

crds: ## Generate crds/, the chart's copy and docs/crds.md from the types in src/api
	cargo build --quiet --bin rehome
	for directory in crds charts/rehome/files/crds; do \
	  rm -f $$directory/*.yaml && target/debug/rehome crds --output-dir $$directory || exit 1; done
	UPDATE_SNAPSHOTS=1 cargo test --quiet --locked --test generated reference

docs: prepare ## Make a site of the pages, target/book/html, and check its links
	@docs/book/build

cluster-up: prepare ## Start a control plane that stays, without containers and without root
	@$(cluster) up

cluster-down: ## End that control plane, with all that is in it
	@$(cluster) down

kubectl: ## Run kubectl on it: make kubectl ARGS="get namespaces"
	@$(cluster) kubectl $(ARGS)

helm: ## Run Helm on it: make helm ARGS="list --all-namespaces"
	@$(cluster) helm $(ARGS)

prepare:
	@tests/prepare
