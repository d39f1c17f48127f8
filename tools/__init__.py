"""Programs around the library: generators for demos, tests and benchmarks."""
