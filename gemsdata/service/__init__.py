"""Masking as a service: CPU hosts send batches over Arrow Flight to hosts with accelerators."""
