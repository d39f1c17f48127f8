"""Fuzzing: mutated input of every kind that gemsdata reads, and what became of it. See ``python -m tools.fuzz --help``."""
