"""Benchmarks: ours beside others', in one run, as Markdown tables."""
