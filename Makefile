# Each target is a script, or a few words for one. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help demo demo-local test check unit model manifests chaos soak fuzz docs dashboard-picture test-docs test-chart test-keda test-oldest-nats test-limits bench bench-worker bench-gateway bench-operator bench-lanes bench-results bench-peers up down install image release release-check crds clean-cache

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: ## show it all on a real cluster: a queue, two functions, a callback, the worker's log (as root; with CLUSTER=current on kubectl's)
	@examples/demo

demo-local: ## show it in seconds without Kubernetes and root: two queues, a cancelled call, callbacks, the workers' log
	@examples/standalone/demo

test: ## run all tests: style, units, on a real nats-server, on a real cluster (as root)
	@tests/run

check: ## format, clippy, rustdoc, dependencies, shellcheck: what needs no server
	@tests/run check

unit: ## unit and property tests, and those on a real nats-server: what needs no root
	@tests/run unit

model: ## all orders of the protocol's steps within larger bounds than `make unit` tries
	@cargo run --locked --quiet --package=asyncqueue-model

manifests: ## what is in manifests/, rendered and checked: kustomize folders, the Helm chart, alerts and dashboard
	@tests/run manifests

chaos: ## faults of all kinds under load, and a table of what became of each call (SEED=… repeats a run; some need root)
	@tests/run chaos

soak: ## random faults for an hour, or for as long as SOAK=… says
	@tests/run soak

fuzz: ## fuzz targets for all that reads what others wrote, a minute each, or as long as FUZZ=… says (needs cargo-fuzz)
	@fuzz/run

docs: ## the documents as a site with search, in target/docs/index.html
	@docs/site/build

dashboard-picture: ## draw docs/dashboard.svg: the dashboard, with what a Prometheus scrapes of real programs under load
	@tests/run dashboard-picture

test-oldest-nats: ## the tests on a real nats-server once more, on the oldest version that is supported
	@tests/run oldest-nats

test-docs: ## every command in README.md and docs/ that takes a cluster, run there (as root)
	@tests/run docs

test-chart: ## all value sets of the Helm chart, installed on the real cluster and tested by `helm test` (as root)
	@tests/run chart

test-keda: ## workers scaled by the real KEDA on the real cluster, to zero and back (as root; builds KEDA first, once)
	@tests/run keda

test-limits: ## limits that hold for minutes, with real workers: what takes too long for `make test`
	@tests/run limits

bench: ## all benchmarks, next to limits and to other queues, and a report of them in docs/bench.md (as root)
	@bench/run

bench-worker: ## how fast the worker is, next to the limit of broker and HTTP
	@bench/run worker

bench-gateway: ## how fast the gateway stores calls, next to the limit of HTTP and broker
	@bench/run gateway

bench-operator: ## how the operator does with many queues: time, memory, and that it writes nothing when nothing happens (as root)
	@bench/run operator

bench-lanes: ## what the lanes of functions cost NATS, by their number
	@bench/run lanes

bench-results: ## how long clients wait for results, and what results cost
	@bench/run results

bench-peers: ## AsyncQueue next to other queues: Faktory, Asynq on Redis, River on PostgreSQL
	@bench/run peers

install: ## bring up the test cluster with all there is in manifests/
	@tests/cluster/install

crds: ## write crds/ from the operator's types
	cargo run --quiet --bin asyncqueue-operator crd >crds/asyncqueues.yaml

up: ## bring up the test cluster: a real Kubernetes of one node, on this machine (as root)
	@tests/cluster/up

down: ## end the test cluster and all that belongs to it
	@tests/cluster/down

image: ## build the binaries and the images asyncqueue and asyncqueue-example-function
	@build/image asyncqueue asyncqueue-example-function

release: ## all files of a release, in target/release-VERSION: images, install.yaml, charts, kubectl aq, checksums
	@build/release

release-check: ## two builds of this commit in two folders have equal files: slow, as it builds twice
	@build/release-check

clean-cache: down ## end the test cluster, and remove the programs and images kept between runs
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/asyncqueue"
