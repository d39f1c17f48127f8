"""Check a shard set against its manifest and its genome, with code that the writer does not use."""
