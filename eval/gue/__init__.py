"""The Genome Understanding Evaluation (GUE): `python -m eval.gue`."""
