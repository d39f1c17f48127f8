"""Tests whether the top NPMI k-mers are motifs of transcription factors: `python -m eval.motifs`."""
