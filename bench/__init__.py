"""Benchmarks of gemsdata and other programs in the same run, as Markdown tables."""
