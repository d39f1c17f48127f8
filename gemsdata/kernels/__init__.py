"""Numba loops: arrays in, ``out`` written; no strings, no exceptions, no Python objects."""
