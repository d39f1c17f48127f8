"""Fault injection: killed commands, full disks, concurrent writers, and the resulting state."""
