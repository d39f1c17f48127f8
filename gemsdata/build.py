"""``build_loader``: from folders and options to a loader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gemsdata.curriculum import Curriculum, resolve_curriculum
from gemsdata.loader import Loader
from gemsdata.mixture import Mixture
from gemsdata.order import Order, Permutation
from gemsdata.reader import SplitReader
from gemsdata.shardset import ShardSet
from gemsdata.strategies import Strategy
from gemsdata.stream import MaskedStream
from gemsdata.world import World

MODEL_INPUTS = ("input_ids", "labels", "attention_mask")


def model_inputs(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return what a model takes of a batch: input_ids, labels and attention_mask."""
    return {name: batch[name] for name in MODEL_INPUTS}


def build_loader(
    shards: str | Path | ShardSet | Sequence[str | Path | ShardSet],
    *,
    split: str = "train",
    masking: str | Strategy = "genemask",
    curriculum: str | Curriculum | None = None,
    batch_size: int | None = None,
    global_batch_size: int | None = None,
    num_steps: int | None = None,
    num_epochs: int | None = None,
    seed: int = 0,
    shuffle: bool | int = True,
    remainder: str = "wrap",
    weights: Sequence[float] | None = None,
    reverse_complement: float = 0.0,
    ranks: np.ndarray | None = None,
    check: str = "size",
    faults: str = "raise",
    world: World | None = None,
    **loader_options: Any,
) -> Loader:
    """Open shard sets and return a loader of masked batches.

    Parameters
    ----------
    shards
        folder or URL of a shard set, or several to mix; `ShardSet.open` takes options of the cache.
    split
        "train" or "valid".
    masking, curriculum
        a strategy or its name; a `Curriculum` or its name, which may also stand as ``masking`` ("cm-gems").
    batch_size, global_batch_size
        rows of a batch of one rank, or of all ranks together; give one. The stream depends on the global one alone.
    num_steps, num_epochs
        length of the run; give one or neither (endless).
    shuffle
        True: over all rows; a number of rows: within windows of it, for sets that must be fetched or decoded; False.
    remainder
        what happens where an epoch ends inside a batch: "wrap", "pad" or "drop"; see `gemsdata.order`.
    weights
        of several sets: their exact shares of every batch, to a thousandth; default: by their numbers of rows.
    reverse_complement
        probability that a row is shown as its reverse complement.
    ranks
        NPMI ranks to mask by, integers[4**k + 5]; default: each set's own.
    check, faults
        see `gemsdata.reader.SplitReader`.
    world
        rank and number of ranks; default: detected.
    **loader_options
        num_workers, threads, prefetch_factor, start_method, device, stage_lag: see `Loader`.

    Raises
    ------
    FileNotFoundError, ValueError
        for a set that is not there or damaged, or options that do not fit; the message says what to do.
    """
    world = World.detect() if world is None else world
    if (batch_size is None) == (global_batch_size is None):
        raise ValueError("give either batch_size (rows of one rank) or global_batch_size (rows of all ranks)")
    if (batch_size or global_batch_size or 0) < 1:
        raise ValueError(f"batch_size = {batch_size}, global_batch_size = {global_batch_size}; give 1 or more")
    if num_steps is not None and num_epochs is not None:
        raise ValueError("give num_steps or num_epochs, not both")
    global_batch = global_batch_size or (batch_size or 0) * world.num_ranks
    several = [shards] if isinstance(shards, str | Path | ShardSet) else list(shards)
    sets = [entry if isinstance(entry, ShardSet) else ShardSet.open(entry) for entry in several]
    if not sets:
        raise ValueError("no shard set is given")
    readers = [SplitReader(entry, split, check=check, faults=faults) for entry in sets]
    if shuffle is True and any(reader.needs_windows for reader in readers):
        raise ValueError(
            "the split is larger than cache_bytes, so a shuffle over all rows would fetch every shard again and again;"
            " give ShardSet.open a larger cache_bytes, or shuffle=ROWS, the rows of a window, such as 100_000"
        )
    permutations = [
        Permutation(num_rows=reader.num_rows, seed=seed, source=source, shuffle=shuffle)
        for source, reader in enumerate(readers)
    ]
    order: Order | Mixture
    if len(sets) == 1:
        if weights is not None:
            raise ValueError("weights are for mixing several shard sets; one is given")
        order = Order(permutation=permutations[0], global_batch=global_batch, remainder=remainder)
    else:
        if remainder != "wrap":
            raise ValueError(
                f"remainder = {remainder!r} is for a single shard set; sets in a mixture wrap, each by itself"
            )
        order = Mixture(
            permutations=tuple(permutations),
            weights=tuple(float(reader.num_rows) for reader in readers) if weights is None else tuple(weights),
            global_batch=global_batch,
        )
    if num_epochs is not None:
        num_steps = order.num_steps(num_epochs)
    stream = MaskedStream(
        readers,
        order,
        resolve_curriculum(masking, curriculum, num_steps=num_steps),
        ranks=[entry.ranks if ranks is None else ranks for entry in sets],
        seed=seed,
        reverse_complement=reverse_complement,
        world=world,
    )
    return Loader(stream, num_steps=num_steps, **loader_options)
