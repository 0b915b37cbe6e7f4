.PHONY: bench

# Measures weft beside other libraries: half an hour to an hour on a machine that has
# nothing else to do. See docs/performance.md.
bench:
	cd bench && go run . && go run . -render ../docs/performance.md
