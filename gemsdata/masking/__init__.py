"""Masking: strategies, which choose the tokens of a row to hide, and curricula, which change the strategy."""
