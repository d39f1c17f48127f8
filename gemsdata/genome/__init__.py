"""Genomes: sequence files, the packed genome, the token vocabulary."""
