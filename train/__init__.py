"""Pretraining and fine-tuning of DNA language models on the streams of gemsdata."""
