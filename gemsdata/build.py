"""``build_loader``: from folders and options to a loader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gemsdata.masking.curriculum import Curriculum, resolve_curriculum
from gemsdata.masking.strategies import Strategy
from gemsdata.service.client import Servers
from gemsdata.service.remote_stream import RemoteSets, RemoteSplit, RemoteStream
from gemsdata.shards.shard_set import ShardSet
from gemsdata.stream.loader import Loader
from gemsdata.stream.mixture import order_of
from gemsdata.stream.reader import SplitReader
from gemsdata.stream.stream import MaskedStream
from gemsdata.stream.world import World

MODEL_INPUTS = ("input_ids", "labels", "attention_mask")


def model_inputs(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return what a model takes of a batch: input_ids, labels and attention_mask."""
    return {name: batch[name] for name in MODEL_INPUTS}


def build_loader(
    shards: str | Path | ShardSet | Servers | Sequence[str | Path | ShardSet],
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
        folder or URL of a shard set, or several to mix (`ShardSet.open` takes options of the cache); or the address of
        a server ("grpc://HOST:PORT"), or several of them that hold the same set (`gemsdata.Servers`, docs/service.md).
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
        what happens where an epoch ends inside a batch: "wrap", "pad" or "drop"; see `gemsdata.stream.order`.
    weights
        of several sets: their exact shares of every batch, to a thousandth; default: by their numbers of rows.
    reverse_complement
        probability that a row is shown as its reverse complement.
    ranks
        NPMI ranks to mask by, integers[4**k + 5]; default: each set's own.
    check, faults
        see `gemsdata.stream.reader.SplitReader`.
    world
        rank and number of ranks; default: detected.
    **loader_options
        num_workers, threads, prefetch_factor, start_method, device, stage_lag: see `Loader`. Workers of a loader that
        asks servers are always threads: each waits for one batch.

    Raises
    ------
    FileNotFoundError, ValueError
        for a set that is not there or damaged, or options that do not fit; the message says what to do.
    ConnectionError
        when no server answers, or one refuses the token.
    """
    world = World.detect() if world is None else world
    if (batch_size is None) == (global_batch_size is None):
        raise ValueError("give either batch_size (rows of one rank) or global_batch_size (rows of all ranks)")
    if (batch_size or global_batch_size or 0) < 1:
        raise ValueError(f"batch_size = {batch_size}, global_batch_size = {global_batch_size}; give 1 or more")
    if num_steps is not None and num_epochs is not None:
        raise ValueError("give num_steps or num_epochs, not both")
    global_batch = global_batch_size or (batch_size or 0) * world.num_ranks
    several = [shards] if isinstance(shards, str | Path | ShardSet | Servers) else list(shards)
    if not several:
        raise ValueError("no shard set is given")
    servers = Servers.of(several)
    readers: Sequence[Any]
    if servers is None:
        sets = [entry if isinstance(entry, ShardSet) else ShardSet.open(str(entry)) for entry in several]
        readers = [SplitReader(entry, split, check=check, faults=faults) for entry in sets]
    else:
        remote = RemoteSets(servers, seed)
        readers = [RemoteSplit(shards=entry, split=split, check=check, faults=faults) for entry in remote.sets]
    order = order_of(
        readers, global_batch=global_batch, seed=seed, shuffle=shuffle, remainder=remainder, weights=weights
    )
    if num_epochs is not None:
        num_steps = order.num_steps(num_epochs)
    curriculum = resolve_curriculum(masking, curriculum, num_steps=num_steps)
    options: dict[str, Any] = {"seed": seed, "reverse_complement": reverse_complement, "world": world}
    if servers is None:
        tables = [entry.ranks if ranks is None else ranks for entry in sets]
        return Loader(
            MaskedStream(readers, order, curriculum, ranks=tables, **options), num_steps=num_steps, **loader_options
        )
    stream = RemoteStream(remote, readers, order, curriculum, own_ranks=ranks, **options)
    return Loader(stream, num_steps=num_steps, **{**loader_options, "threads": True, "start_method": None})
