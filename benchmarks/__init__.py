"""Time and memory, measured side by side in one run; results in `benchmarks/results/`. Never part of the tests."""
