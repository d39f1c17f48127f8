"""Evaluation: the papers' benchmarks, studies of masking strategies, checks of the data, motifs."""
