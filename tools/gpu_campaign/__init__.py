"""Checks, rates, pretrainings and evaluations on a GPU, in slices of a few minutes: `python -m tools.gpu_campaign`."""
