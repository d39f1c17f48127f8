"""Views: which windows of a shard set are rows, and of which tokens."""
