"""The configuration of a stream: everything besides step and stage log that its batches depend on, and two hashes of
it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemsdata.masking.curriculum import Curriculum
from gemsdata.stream.mixture import Mixture
from gemsdata.stream.order import Order
from gemsdata.stream.stage_log import StageLog
from gemsdata.stream.world import World

_ROTATION_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Everything that a batch of this rank depends on, besides its step and the stage log."""

    fingerprint: str
    """identity of the data: the fingerprint of the shard set, or `combined_fingerprint` of several"""
    splits: tuple[str, ...]
    """of each set"""
    order: Order | Mixture
    """the rows of batch s"""
    curriculum: Curriculum
    """the masking at each step"""
    rank_hashes: tuple[str, ...]
    """sha256 of the NPMI ranks that each set is masked by"""
    seed: int
    """seed of the order, the strands and the masks"""
    reverse_complement: float
    """probability that a row is shown as its reverse complement"""
    world: World
    """rank and number of ranks, which give this rank's slice of every global batch"""

    def __post_init__(self) -> None:
        if not 0 <= self.reverse_complement <= 1:
            raise ValueError(f"reverse_complement = {self.reverse_complement}; give a probability, 0 to 1")
        if not self.num_rows:
            raise ValueError(
                f"a global batch of {self.order.global_batch} rows has none for rank {self.world.rank} of"
                f" {self.world.num_ranks}; give a larger one"
            )

    @property
    def num_rows(self) -> int:
        """Rows of a batch of this rank."""
        return len(self.world.rank_slice(self.order.global_batch))

    @property
    def config_hash(self) -> str:
        """Hash of every option that a batch depends on, besides the data; 16 hex digits."""
        content: dict[str, Any] = {
            "splits": list(self.splits),
            "order": repr(self.order),
            "curriculum": self.curriculum.describe(),
            "reverse_complement": self.reverse_complement,
            "ranks": list(self.rank_hashes),
        }
        if isinstance(self.order, Order) and self.order.rotates:
            content["rotation_version"] = _ROTATION_VERSION
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def stage(self, step: int, log: StageLog) -> int:
        """Return the stage of batch ``step`` given the current entries of ``log``."""
        return self.curriculum.stage(step, log.at(step), self.seed)


def combined_fingerprint(fingerprints: Sequence[str]) -> str:
    """Return the fingerprint of a stream's data: that of its set, or a hash of those of all sets."""
    if len(fingerprints) == 1:
        return fingerprints[0]
    return hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()


def rank_hash(ranks: np.ndarray) -> str:
    """Return the sha256 of NPMI ranks as a `Masker` holds them."""
    return hashlib.sha256(ranks.tobytes()).hexdigest()
