# make help lists what there is.
GO ?= $(shell command -v go || echo /usr/local/go/bin/go)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo v0.1.0)
LDFLAGS = -s -w -X main.version=$(VERSION)
# Without this tag the kustomize library links Go's plugin package, and with it
# every method of every type: a third more of a program.
TAGS = -tags kustomize_disable_go_plugin_support

.PHONY: help up down build runtime image test-deps test race bench lint

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: runtime build image ## Build everything, run it here, and push the shop to it
	@hack/up.sh

down: ## End it: no process, mount, namespace, link or rule is left
	@if [ -x bin/berth ]; then bin/berth down --data-dir "$${BERTH_DATA_DIR:-/var/lib/berth}"; else echo "nothing to stop: bin/berth was never built"; fi

build: ## Build bin/berth
	@mkdir -p bin
	$(GO) build $(TAGS) -buildvcs=false -trimpath -ldflags '$(LDFLAGS)' -o bin/berth ./cmd/berth

runtime: ## Build containerd, its shim and runc into bin/
	@hack/runtime.sh

image: ## Build the image of the examples, bin/shop.tar
	@hack/image.sh

test-deps: ## Install what the tests need
	@hack/test-deps.sh

test: test-deps build ## Run all tests (as root)
	$(GO) test $(TAGS) -timeout 12m ./...

race: test-deps ## Run the tests of the engine and the parts it talks to with the race detector
	$(GO) test $(TAGS) -race -timeout 15m ./api/... ./engine/... ./sources/... ./nodeagent/pods/...

bench: test-deps build ## Print the figures that the documentation promises
	@hack/bench.sh

lint: ## gofmt, go vet, and the import rules
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not formatted:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet $(TAGS) ./...
	$(GO) test ./hack/imports
