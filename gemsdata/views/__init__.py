"""Views of shard sets: rows of chosen windows and tokens."""
