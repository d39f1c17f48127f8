"""Honest evaluation of DNA language models."""
