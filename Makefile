.DEFAULT_GOAL := help
.PHONY: help crds

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | column -t -s '|'

crds: ## Generate crds/ and the chart's copy from the types in src/api
	cargo build --quiet --bin rehome
	for directory in crds charts/rehome/files/crds; do \
	  rm -f $$directory/*.yaml && target/debug/rehome crds --output-dir $$directory || exit 1; done
