"""Counts of n-grams, and their PMI, NPMI and ranks."""
