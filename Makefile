# Everything that is built goes to bin/ and build/.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

GO ?= go
TOOL := GOWORK=off $(GO) run ./ops/upstream
GETH_TREE := build/upstream/op-geth
# Our packages: the race detector is on for them.
CORE := ./op-shared-sequencer/...
GIT_COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

.PHONY: upstream
upstream: ## make build/upstream: op-geth and optimism with our patch queues
	@$(TOOL) apply

.PHONY: patches
patches: ## write the patch queues from edited trees in build/upstream
	@$(TOOL) capture op-geth sessions.patch
	@$(TOOL) capture optimism queue.patch

.PHONY: contracts
contracts: ## compile upstream's contracts and ours to build/contracts
	@GOWORK=off $(GO) run ./packages/contracts-bedrock/cmd/build -out build/contracts

.PHONY: build
build: bin/op-node bin/op-geth bin/devnet bin/op-shared-sequencer ## build bin/op-node, bin/op-geth, bin/devnet and bin/op-shared-sequencer

.PHONY: bin/op-node bin/op-geth bin/devnet bin/op-shared-sequencer
bin/op-node: upstream
	$(GO) build -ldflags "-X main.GitCommit=$(GIT_COMMIT)" -o $@ ./op-node/cmd
bin/op-geth: upstream
	cd $(GETH_TREE) && GOWORK=off $(GO) build -o $(CURDIR)/$@ ./cmd/geth
bin/devnet: upstream
	$(GO) build -ldflags "-X main.GitCommit=$(GIT_COMMIT)" -o $@ ./op-e2e/cmd/devnet
bin/op-shared-sequencer: upstream
	$(GO) build -ldflags "-X main.GitCommit=$(GIT_COMMIT)" -o $@ ./op-shared-sequencer/cmd

# How many operators agree on the slots of a devnet; 1 sequences alone.
OPERATORS ?= 1

.PHONY: devnet
devnet: contracts bin/devnet bin/op-geth ## run L1 and two rollups with the shared sequencer (OPERATORS=4; ARGS="--help" for options)
	bin/devnet up --operators $(OPERATORS) $(ARGS)

.PHONY: demo
demo: contracts bin/devnet ## show atomic bundles over two rollups, up to safe blocks on L1 (OPERATORS=4)
	bin/devnet demo --operators $(OPERATORS) $(ARGS)

.PHONY: test
test: test-upstream test-contracts test-alerts test-unit fuzz-smoke sim test-op-geth test-sdk test-system test-mixed test-statuspage test-compose ## run all tests

.PHONY: test-upstream
test-upstream: upstream
	$(GO) test ./ops/...

.PHONY: test-contracts
test-contracts: ## forge tests of our contracts
	@GOWORK=off $(GO) run ./packages/contracts-bedrock/cmd/build -out build/contracts -test

.PHONY: test-unit
test-unit: upstream contracts ## unit tests, ours with the race detector
	$(GO) test -race $(CORE)
	$(GO) test -race -run Verified ./op-node/mends
	$(GO) test -run AMillion ./op-shared-sequencer/executor
	$(GO) test ./op-node/... ./packages/... ./op-e2e/genesis/... ./op-e2e/devnet/... ./op-e2e/compose/... ./op-e2e/cmd/... ./op-e2e/bench/... ./op-e2e/scaling/...
	cd op-e2e/bench/page && GOWORK=off $(GO) test ./...

.PHONY: test-alerts
test-alerts: ## test the alerts with promtool
	@ops/scripts/alerts.sh

.PHONY: docs
docs: upstream ## write docs/metrics.md from the metrics that are registered
	$(GO) test -count 1 -run TestDocument ./op-shared-sequencer/metrics -args -update

.PHONY: test-op-geth
test-op-geth: upstream ## our tests of the patched op-geth, and upstream's of tries and pathdb
	cd $(GETH_TREE) && GOWORK=off $(GO) test -race -run '^(TestSession|TestPublish|TestSavepoint|TestInsertSealed|TestKarst|TestReaddedLayer|TestNodeFilter|FuzzSavepoint)' ./core/state ./core/vm ./eth/catalyst ./triedb/pathdb ./eth/downloader
	cd $(GETH_TREE) && GOWORK=off $(GO) test ./trie/... ./triedb/pathdb

.PHONY: test-sdk
test-sdk: contracts bin/devnet ## tests of the TypeScript SDK, with a real devnet
	@ops/scripts/sdk.sh

.PHONY: test-system
test-system: upstream contracts ## system tests: real L1, engines, contracts and op-supernode verification
	$(GO) test -timeout 60m -p 1 ./op-e2e/system/... ./op-e2e/faultnet/... ./op-e2e/drill/... ./op-e2e/conductor/... ./op-e2e/judge/...

.PHONY: test-mixed
test-mixed: contracts bin/devnet ## operators of the previous commit and of this one in one set (PREVIOUS=HEAD~1)
	@ops/scripts/mixed.sh

# UPDATE_SCREENSHOT=1 writes docs/images anew.
.PHONY: test-statuspage
test-statuspage: contracts bin/devnet ## the status page in a browser, on a devnet of four operators (skipped without Chromium)
	@ops/scripts/statuspage.sh

# A devnet in containers. CHAINS and OPERATORS are how many; four operators go on without any
# one of them, three only without the third.
CHAINS ?= 2
COMPOSE_OPERATORS = $(if $(filter file,$(origin OPERATORS)),4,$(OPERATORS))
COMPOSE = bin/devnet compose
export DEVNET_COMPOSE_PROJECT ?= $(or $(PROJECT),sharedseq)
export DEVNET_COMPOSE_PORT_BASE ?= $(or $(PORT_BASE),18500)
export DEVNET_COMPOSE_TAG ?= $(or $(TAG),dev)

.PHONY: images
images: upstream ## build the images op-shared-sequencer/{op-node,op-geth,op-batcher,op-proposer,devnet}:dev
	@ops/scripts/docker.sh ops/docker/images.sh build

.PHONY: images-check
images-check: upstream ## build everything in the images twice, and compare
	@ops/scripts/docker.sh ops/docker/images.sh check

.PHONY: devnet-check
devnet-check: bin/devnet
	@$(COMPOSE) check --chains $(CHAINS) --operators $(COMPOSE_OPERATORS) $(ARGS)

.PHONY: devnet-up
devnet-up: devnet-check contracts images ## run a devnet in containers (CHAINS=2 OPERATORS=4 PORT_BASE=18500 PROJECT=sharedseq ARGS="--help")
	@$(COMPOSE) up --chains $(CHAINS) --operators $(COMPOSE_OPERATORS) $(ARGS)

.PHONY: devnet-status
devnet-status: bin/devnet ## its containers, operators, heads and next leaders
	@$(COMPOSE) status

.PHONY: devnet-logs
devnet-logs: bin/devnet ## what its containers log (SERVICES="op1-node l1" ARGS=--follow)
	@$(COMPOSE) logs $(ARGS) $(SERVICES)

.PHONY: devnet-smoke
devnet-smoke: bin/devnet ## check it: bundles, an operator killed and back: build/reports/compose.json
	@$(COMPOSE) smoke $(ARGS)

.PHONY: devnet-bundle
devnet-bundle: bin/devnet bin/op-shared-sequencer ## send it a bundle over its chains, and wait until it is executed
	@bundle=$$($(COMPOSE) bundle) && bin/op-shared-sequencer bundle send --wait --rpc http://127.0.0.1:$$(($(DEVNET_COMPOSE_PORT_BASE) + 21)) <<<"$$bundle"

.PHONY: devnet-add-operator
devnet-add-operator: bin/devnet ## take another operator into its set while it runs
	@$(COMPOSE) add-operator

.PHONY: devnet-add-chain
devnet-add-chain: bin/devnet ## sequence another chain with the others while it runs
	@$(COMPOSE) add-chain

.PHONY: devnet-stop
devnet-stop: bin/devnet ## stop its containers; devnet-up goes on with them
	@$(COMPOSE) stop

.PHONY: devnet-down
devnet-down: bin/devnet ## remove its containers, volumes and files
	@$(COMPOSE) down

.PHONY: test-compose
test-compose: upstream contracts bin/devnet ## a devnet in containers, up, checked and down; skipped where no docker daemon is
	@ops/scripts/docker.sh --optional ops/docker/smoke.sh

# Seeds of the simulation, 0 to SEEDS-1. SEED=n replays one and prints what happened.
SEEDS ?= 2000

.PHONY: sim
sim: upstream ## simulate operators from SEEDS=2000 seeds: crashes, lies, partitions, reorgs (SEED=n replays one)
	$(GO) test -count 1 -timeout 60m -run 'TestSim$$' ./op-shared-sequencer/sim $(if $(SEED),-v -args -seed $(SEED),-args -seeds $(SEEDS))

.PHONY: drill
drill: contracts bin/devnet ## kill leaders of four operators, and op-conductor's, and compare: build/reports/drill.json
	bin/devnet drill $(ARGS)

.PHONY: judge
judge: contracts bin/devnet ## valid and invalid messages over three rollups, against op-supernode (MINUTES=5): build/reports/judge.json
	bin/devnet judge --minutes $(or $(MINUTES),5) $(ARGS)

.PHONY: bench-agreement
bench-agreement: upstream ## commit latency of four operators 25 ms apart: build/reports/latency.json
	@mkdir -p build/reports
	$(GO) test -count 1 -run TestLatencyReport -v ./op-shared-sequencer/rotation/cometbft -args -report $(CURDIR)/build/reports/latency.json

.PHONY: bench-latency
bench-latency: contracts bin/devnet ## what users of four operators wait for, from sending to agreement: build/reports/userlatency.json
	bin/devnet latency $(ARGS)

.PHONY: bench-executor
bench-executor: upstream ## messages verified per second over ten million logs: build/reports/executor.json
	@mkdir -p build/reports
	$(GO) test -count 1 -timeout 60m -run 'TestReport$$' -v ./op-shared-sequencer/executor -args -report $(CURDIR)/build/reports/executor.json $(ARGS)

.PHONY: race
race: upstream contracts ## system tests under the race detector; only accesses of ours count
	@ops/scripts/race.sh $(ARGS)

.PHONY: stock
stock: upstream ## build upstream's op-node and op-geth (with Karst's rules only) to build/stock, for benchmarks
	@ops/scripts/stock.sh

# QUICK=1: few and short rounds, under five minutes once stock is built. ONLY names scenarios.
.PHONY: bench
bench: stock contracts bin/devnet ## measure beside stock: build/reports/bench.json, and build/reports/bench with a page (QUICK=1 ONLY=stock,scale)
	@ops/scripts/bench.sh

.PHONY: bench-page
bench-page: ## write docs/benchmarks.md from build/reports/bench.json
	@ops/scripts/bench.sh page docs

.PHONY: bench-session
bench-session: upstream contracts ## small benchmarks of sessions against stock, as ratios of one run
	$(GO) test -run '^$$' -bench . -benchtime 5x ./op-e2e/bench/... ./op-node/mends/...

.PHONY: fuzz
fuzz: upstream ## a short run of each fuzz target (FUZZTIME=10s)
	@ops/scripts/fuzz.sh $(or $(FUZZTIME),10s)

.PHONY: fuzz-smoke
fuzz-smoke: upstream ## a few inputs to each fuzz target, every decoder's among them
	@ops/scripts/fuzz.sh 300x

.PHONY: lint
lint: upstream ## golangci-lint with .golangci.yaml, and gofmt
	@ops/scripts/lint.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin build packages/sdk/{node_modules,dist,dist-test}
