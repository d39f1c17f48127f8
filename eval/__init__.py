"""Evaluation of what was learned: biological checks of NPMI tables."""
