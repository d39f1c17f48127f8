"""Fuzz targets: sets of tokens that were written from a view."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import gemsdata as gd
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.rows import read_blocks
from gemsdata.shards.write import shard
from gemsdata.views.rows import ViewRows
from tools.chaos.tamper import write_tokenizer
from tools.fuzz.mutations import mutate_bytes
from tools.fuzz.runner import WrongAnswer
from tools.fuzz.shard_targets import ManifestTarget, make_set


def make_view_set(folder: Path, compression: str = "none") -> Path:
    """Write rows of byte-pair tokens in both formats; return the folder of the set."""
    out = folder / f"view-{compression}"
    if out.exists():
        return out
    make_set(folder)  # its FASTA and table
    packed, tokenizer = folder / f"packed-of-{out.name}", folder / f"tokenizer-of-{out.name}"
    options = ShardOptions(format="packed", k=3, npmi=str(folder / "table.parquet"), valid_contigs=("two",))
    shard([folder / "set.fa"], packed, options)
    write_tokenizer(tokenizer)
    gd.view(packed, tokens=tokenizer, row_bases=60).write(out, format="both", compression=compression)
    return out


class ViewShardTarget:
    """Shards of byte-pair tokens, read as a loader reads them and by the readers of `gemsdata verify`.

    The manifest is given the size of the mutated file, so that what is tested is the reader and not the size.
    """

    def __init__(self, folder: Path, file_format: str, compression: str = "none") -> None:
        self._folder, self._format, self._compression = folder, file_format, compression
        self.name = f"{file_format} shard of a view" + (f", {compression}" if compression != "none" else "")

    def prepare(self) -> None:
        """Make the set, and read its first shard."""
        self._set = make_view_set(self._folder, self._compression)
        self._manifest = Manifest.load(self._set)
        self._entry = self._manifest.shards("train")[0]
        self._mutant = self._folder / f"mutant-{self.name.replace(' ', '-')}"
        shutil.rmtree(self._mutant, ignore_errors=True)
        shutil.copytree(self._set, self._mutant)
        self._rows = self._read(ShardSet(self._set, self._manifest, self._format))

    def _read(self, shards: ShardSet) -> ViewRows:
        reader = gd.view(shards).reader("train", check="size")
        return reader.rows(0, np.arange(self._entry.num_rows))

    def seeds(self) -> Sequence[bytes]:
        """Return the first training shard."""
        return [(self._set / self._entry.files[self._format].path).read_bytes()]

    def mutate(self, seed: bytes, generator: random.Random) -> bytes:
        """Return a mutated file."""
        return mutate_bytes(seed, generator)

    def run(self, content: bytes) -> None:
        """Read all rows with both readers and compare them."""
        path = self._mutant / self._entry.files[self._format].path
        path.unlink()  # a mapped file must not change
        path.write_bytes(content)
        file = dataclasses.replace(self._entry.files[self._format], num_bytes=len(content))
        first = dataclasses.replace(self._entry, files={**self._entry.files, self._format: file})
        splits = {**self._manifest.splits, "train": [first, *self._manifest.shards("train")[1:]]}
        rows = self._read(ShardSet(self._mutant, dataclasses.replace(self._manifest, splits=splits), self._format))
        found = _columns(rows)
        if all(np.array_equal(found[name], column) for name, column in _columns(self._rows).items()):
            return  # what was mutated is not what the loader reads
        try:
            blocks = list(read_blocks(path, "shard", self._format))
        except VerificationError:
            raise ValueError("verify refuses the shard, and the loader does so with check='hash'") from None
        for name, column in found.items():
            stored = np.concatenate([block[name] for block in blocks])
            if not np.array_equal(column, stored[:, : column.shape[1]] if column.ndim == 2 else stored):
                raise WrongAnswer(f"the loader and verify read other {name}")


def _columns(rows: ViewRows) -> dict[str, np.ndarray]:
    return {
        "input_ids": rows.tokens.input_ids,
        "num_tokens": rows.tokens.num_tokens,
        "contig": rows.contig,
        "start": rows.start,
    }


class ViewManifestTarget(ManifestTarget):
    """``_index.json`` of a set that was written from a view."""

    name = "manifest of a view"

    def prepare(self) -> None:
        """Make the set."""
        make_view_set(self._folder)
        super().prepare()
        self._set = self._folder / "view-none"
        self._manifest = Manifest.load(self._set)
        shutil.rmtree(self._mutant)
        shutil.copytree(self._set, self._mutant)

    def _with_unverified(self, manifest: Manifest) -> Manifest:
        original = self._manifest
        if manifest.tokens is None or original.tokens is None:
            return manifest
        tokens = dataclasses.replace(
            manifest.tokens, view=original.tokens.view, files_sha256=original.tokens.files_sha256
        )
        return dataclasses.replace(
            super()._with_unverified(manifest),
            version=original.version,  # an older one has no files_sha256, which verify says
            seed=original.seed,
            block_rows=original.block_rows,
            windows=dataclasses.replace(manifest.windows, full_bases=original.windows.full_bases),
            tokens=tokens,
        )
