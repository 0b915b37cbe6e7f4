# Short names for what .ci/run does; it needs none of them.

.PHONY: help
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## test    everything, as go test ./... does
.PHONY: test
test:
	go test ./...

## race    everything under the race detector
.PHONY: race
race:
	go test -race -timeout 15m ./...

## fmt     formats the Go code
.PHONY: fmt
fmt:
	gofmt -w $$(git ls-files '*.go')

## lint    gofmt, go vet and staticcheck, which change nothing
.PHONY: lint
lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	cd bench && go vet ./...

## fuzz    every fuzz target for FUZZ_SECONDS (default 4)
.PHONY: fuzz
fuzz:
	@for f in $$(git ls-files '*_test.go' | grep -v '^bench/' | xargs grep -l '^func Fuzz'); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$f); do \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $${FUZZ_SECONDS:-4}s ./$$(dirname $$f) || exit 1; \
		done; \
	done

## e2e     real peers: browsers, other libraries, MCP's SDK; installs what they need
.PHONY: e2e
e2e:
	@for f in .ci/e2e-*; do echo "$$f"; "$$f" || exit 1; done

## docs    writes what is generated in docs, then checks code and links in all of it
.PHONY: docs
docs:
	go test ./doctor -run '^TestRulesDoc$$' -update
	go test ./internal/tidy -run '^TestDoc'

## ci      all of the above that checks something, as .ci/run does on a clean clone
.PHONY: ci
ci:
	.ci/run

## bench   weft beside other libraries: half an hour to an hour on a machine that has
##         nothing else to do; see docs/performance.md
.PHONY: bench
bench:
	cd bench && go run . && go run . -render ../docs/performance.md

## bench-mcp  the MCP gateway beside supergateway, which it installs with npm; ten
##         minutes on such a machine
.PHONY: bench-mcp
bench-mcp:
	cd bench && go run . -suite mcp -max-rounds 10 && go run . -suite mcp -render ../docs/performance.md

# A thousand runs of the call that the C client could not make: capture, sound
# and pings together on one WebSocket, with the doctor on the wire.
## soak    a thousand runs of the call that another client could not make
.PHONY: soak
soak:
	go test ./chat -run TestReportedScenario -rounds 1000 -timeout 30m
