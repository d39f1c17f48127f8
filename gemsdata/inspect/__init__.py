"""What is in a shard set and how it looks: audits, rows, queries, figures, reports."""
