"""Verification of a shard set, by code that the writer does not use.

``verify`` (in `shard_set`) checks the files; given the genome, it also checks `rows` against `reference` (the genome,
read again) and `windows`, and the `npmi` table. Entry point: ``gemsdata.shards.verify.shard_set.verify``; it is not
imported here, so that the command line can name the exception without loading Arrow.
"""

from __future__ import annotations


class VerificationError(Exception):
    """The set differs from what its manifest or its genome says; the message names the first difference."""
