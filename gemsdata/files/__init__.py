"""Files: atomic writing, caching, prefetching and hashing."""
