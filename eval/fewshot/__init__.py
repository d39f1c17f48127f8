"""Few-shot evaluation of several models: `python -m eval.fewshot`."""
