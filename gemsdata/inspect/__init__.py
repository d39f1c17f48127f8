"""Tools to inspect a shard set: audits, single rows, SQL, figures, reports."""
