"""Fuzzing: mutated input of every kind that gemsdata reads. See ``python -m tools.fuzz --help``."""
