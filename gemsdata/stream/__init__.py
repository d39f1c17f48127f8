"""Which batch comes when: order, stage log, stream and loader."""
