"""Which tokens of a row are hidden, and when that changes."""
