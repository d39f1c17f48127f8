"""Faults on purpose: killed commands, full disks, other writers, and what they leave."""
