"""Studies for `python -m eval.compare`."""
