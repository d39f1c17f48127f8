"""Masking as a service: batches over Arrow Flight, from hosts that have processors to hosts that have accelerators."""
