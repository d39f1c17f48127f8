"""A shard set on disk: planned, written, read and verified."""
