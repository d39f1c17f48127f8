"""Shard sets on disk: planning, writing, reading and verification."""
