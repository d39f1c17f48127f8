"""The stream of batches: order, stage log, stream and loader."""
