"""Small shard sets and loaders for the tests of the stream, and one hash of everything that a run hands out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

import gemsdata as gd
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard
from tests.genomes import random_dna, write_fasta

ARRAYS = ("input_ids", "labels", "attention_mask", "sample_ids")


def make_set(folder: Path, *, num_bases: int = 3391, genome_seed: int = 1, **options) -> Path:
    """A set of 137 training rows of at most 30 tokens (when nothing is changed): seven shards, blocks of four rows."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fasta = folder.parent / f"{folder.name}.fa"
    write_fasta(fasta, {"one": random_dna(num_bases, genome_seed), "held_out": random_dna(700, genome_seed + 50)})
    chosen = {
        "k": 3,
        "row_tokens": 30,
        "block_rows": 4,
        "rows_per_shard": 20,
        "min_count": 1,
        "valid_contigs": ("held_out",),
        "scheme": "dnabert",
    }
    shard([fasta], folder, ShardOptions(**{**chosen, **options}))
    return folder


def loaders_of_ranks(shards, num_ranks: int, *, global_batch_size: int = 7, **options) -> list[gd.Loader]:
    """One loader for each rank, all in this process."""
    return [
        gd.build_loader(
            shards, global_batch_size=global_batch_size, world=gd.World(rank=rank, num_ranks=num_ranks), **options
        )
        for rank in range(num_ranks)
    ]


def joined(parts: list[dict]) -> dict:
    """The global batch of the batches that the ranks got at one step, without padding."""
    assert len({(part["step"], part["epoch"], part["stage"]) for part in parts}) == 1
    whole = {name: np.concatenate([part[name].numpy() for part in parts]) for name in ARRAYS}
    real = whole["sample_ids"] >= 0
    assert (whole["labels"][~real] == -100).all()
    return {"step": parts[0]["step"], "epoch": parts[0]["epoch"], "stage": parts[0]["stage"]} | {
        name: values[real] for name, values in whole.items()
    }


def global_batches(loaders: list[gd.Loader], num_steps: int | None = None) -> list[dict]:
    """The next global batches, from loaders that are read in step."""
    iterators = [iter(loader) for loader in loaders]
    batches = []
    try:
        while num_steps is None or len(batches) < num_steps:
            parts = [next(iterator, None) for iterator in iterators]
            if None in parts:
                assert parts == [None] * len(parts), "a rank has fewer batches than another"
                break
            batches.append(joined(parts))
    finally:
        for loader in loaders:
            loader.close()
    return batches


def digest(batches: list[dict]) -> str:
    """Hash of ids, labels, attention mask, sample ids, step, epoch and stage of global batches."""
    content = hashlib.sha256()
    for batch in batches:
        content.update(np.array([batch["step"], batch["epoch"], batch["stage"]], np.int64).tobytes())
        for name in ARRAYS:
            content.update(repr(batch[name].shape).encode())
            content.update(batch[name].astype(np.int64).tobytes())
    return content.hexdigest()
