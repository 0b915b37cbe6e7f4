.PHONY: bench

# Measures weft beside other libraries: half an hour to an hour on a machine that has
# nothing else to do. See docs/performance.md.
bench:
	cd bench && go run . && go run . -render ../docs/performance.md

.PHONY: soak

# A thousand runs of the call that the C client could not make: capture, sound
# and pings together on one WebSocket, with the doctor on the wire.
soak:
	go test ./chat -run TestReportedScenario -rounds 1000 -timeout 30m
