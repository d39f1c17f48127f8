"""Fuzz targets: the files of a shard set, NPMI tables and BED files."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from gemsdata.files.hashing import xxh3_of
from gemsdata.files.typed_json import from_json
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import MANIFEST_FILE, Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.packed import PackedShard
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.split_reader import SplitReader, StoredRows
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.rows import read_blocks
from gemsdata.shards.verify.shard_set import verify
from gemsdata.shards.write import shard
from gemsdata.views.regions import Contigs, read_bed
from tools.fuzz.mutations import mutate_bytes, mutate_json
from tools.fuzz.runner import WrongAnswer

_ROW_TOKENS = 24


def make_set(folder: Path, compression: str = "none") -> Path:
    """Make a small shard set in both formats, with a table of short n-grams; return its folder."""
    out = folder / f"set-{compression}"
    if out.exists():
        return out
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(1)
    letters = "".join(generator.choices("ACGTacgt", k=1100))
    fasta = folder / "set.fa"
    fasta.write_text(f">one\n{letters[:600]}NNNN{letters[600:]}\n>two\n{letters[100:350]}\n")
    table = folder / "table.parquet"
    NpmiTable.from_fasta(fasta, max_k=4, min_count=2).to_parquet(table)
    options = ShardOptions(
        k=3,
        row_tokens=_ROW_TOKENS,
        block_rows=4,
        rows_per_shard=16,
        format="both",
        rank_column=True,
        compression=compression,
        npmi=str(table),
        valid_contigs=("two",),
    )
    shard([fasta], out, options)
    return out


class _SetTarget:
    """A target whose inputs are files of a small shard set."""

    name = ""

    def __init__(self, folder: Path, compression: str = "none") -> None:
        self._folder = folder
        self._compression = compression

    def prepare(self) -> None:
        """Make the set."""
        self._set = make_set(self._folder, self._compression)
        self._fasta = str(self._folder / "set.fa")
        self._manifest = Manifest.load(self._set)
        self._mutant = self._folder / f"mutant-{self.name.replace(' ', '-')}"
        shutil.rmtree(self._mutant, ignore_errors=True)
        shutil.copytree(self._set, self._mutant)

    def mutate(self, seed: bytes, generator: random.Random) -> bytes:
        """Return a mutated file."""
        return mutate_bytes(seed, generator)


class ManifestTarget(_SetTarget):
    """``_index.json``: mutated as bytes, as JSON, and as JSON whose hashes were computed again."""

    name = "manifest"

    def seeds(self) -> Sequence[bytes]:
        """Return the manifest."""
        return [(self._set / MANIFEST_FILE).read_bytes()]

    def mutate(self, seed: bytes, generator: random.Random) -> bytes:
        """Return a mutated manifest."""
        if generator.random() < 0.3:
            return mutate_bytes(seed, generator, (b"null", b"-1", b'"x"', b"[]", b"{}", b"1e999", b"NaN"))
        return b"#" * generator.randrange(2) + mutate_json(seed, generator)

    def run(self, content: bytes) -> None:
        """Parse the manifest; with new hashes, it is verified against the FASTA unless its content is unchanged."""
        if content.startswith(b"#"):  # as if edited by someone who recomputes the hashes
            content = _with_new_hashes(content[1:])
        manifest = Manifest.parse(content, "manifest")
        if self._with_unverified(manifest).with_hashes() == self._manifest:
            return
        (self._mutant / MANIFEST_FILE).write_bytes(content)
        verify(self._mutant, [self._fasta])
        raise WrongAnswer(f"verify accepts a manifest with other content: {content[:2000]!r}")

    def _with_unverified(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the original values of the fields that `verify` does not claim to check."""
        same_name = dataclasses.replace(manifest.genome, name=self._manifest.genome.name)  # not in the FASTA
        return dataclasses.replace(manifest, genome=same_name)


class ShardTarget(_SetTarget):
    """Shards of one format: read as a loader reads them, and by the readers of `gemsdata verify`.

    The manifest is given the size of the mutated file, so that the reader is tested and not the size check.
    """

    def __init__(self, folder: Path, file_format: str, compression: str = "none") -> None:
        super().__init__(folder, compression)
        self._format = file_format
        self.name = f"{file_format} shard" + (f", {compression}" if compression != "none" else "")

    def prepare(self) -> None:
        """Make the set and read its first shard."""
        super().prepare()
        self._rows = self._read(ShardSet(self._set, self._manifest, self._format))

    def _read(self, shards: ShardSet) -> StoredRows:
        num_rows = self._manifest.shards("train")[0].num_rows
        reader = SplitReader(shards, "train", check="size")
        rows = reader.empty(num_rows)
        reader.read(0, np.arange(num_rows), np.zeros(num_rows, np.uint8), rows)
        return rows

    def seeds(self) -> Sequence[bytes]:
        """Return the first training shard."""
        return [(self._set / self._manifest.shards("train")[0].files[self._format].path).read_bytes()]

    def run(self, content: bytes) -> None:
        """Read all rows with both readers and compare them."""
        entry = self._manifest.shards("train")[0]
        path = self._mutant / entry.files[self._format].path
        path.unlink()  # a mapped file must not change
        path.write_bytes(content)
        file = dataclasses.replace(entry.files[self._format], num_bytes=len(content))
        first = dataclasses.replace(entry, files={**entry.files, self._format: file})
        splits = {**self._manifest.splits, "train": [first, *self._manifest.shards("train")[1:]]}
        shards = ShardSet(self._mutant, dataclasses.replace(self._manifest, splits=splits), self._format)
        if xxh3_of(path) != entry.files[self._format].xxh3_64:
            self._check_refused_by_hash(shards)
        rows = self._read(shards)
        if _same_rows(rows, self._rows):
            return  # what was mutated is not what the loader reads
        try:
            blocks = list(read_blocks(path, "shard", self._format))
        except VerificationError:
            raise ValueError("verify refuses the shard, and the loader does so with check='hash'") from None
        columns = {name: np.concatenate([block[name] for block in blocks]) for name in ("input_ids", "num_tokens")}
        if not _same_rows(rows, StoredRows(**columns)):
            raise WrongAnswer("the loader and verify read other rows")

    def _check_refused_by_hash(self, shards: ShardSet) -> None:
        reader = SplitReader(shards, "train", check="hash")
        try:
            reader.read(0, np.zeros(1, np.int64), np.zeros(1, np.uint8), reader.empty(1))
        except ValueError:
            return
        raise WrongAnswer("a changed shard passes check='hash'")


class PackedTarget(_SetTarget):
    """Packed shards: blocks as views read them, and as Arrow reads them with every check on."""

    name = "packed shard"

    def prepare(self) -> None:
        """Make a packed set."""
        super().prepare()
        folder = self._folder / "packed"
        if not folder.exists():
            shard([self._fasta], folder, ShardOptions(format="packed", k=3, npmi=str(self._folder / "table.parquet")))
        entry = Manifest.load(folder).shards("train")[0]
        self._seed = (folder / entry.files["packed"].path).read_bytes()
        self._path = self._folder / "mutant-packed.arrow"
        self._num_blocks = entry.num_rows

    def seeds(self) -> Sequence[bytes]:
        """Return the training shard."""
        return [self._seed]

    def run(self, content: bytes) -> None:
        """Read all blocks with both readers and compare them."""
        self._path.unlink(missing_ok=True)
        self._path.write_bytes(content)
        shard_file = PackedShard(self._path)
        shard_file.addresses(self._num_blocks)
        found = [shard_file.block(index) for index in range(shard_file.num_blocks)]
        try:
            reader = pa.ipc.open_file(self._path)
            batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
            for batch in batches:
                batch.validate(full=True)
        except (pa.ArrowException, OSError):
            raise ValueError("Arrow refuses the shard, and so does check='hash'") from None
        for blocks, batch in zip(found, batches, strict=True):
            for name in ("contig", "start", "num_bases"):
                if getattr(blocks, name).tolist() != batch.column(name).to_pylist():
                    raise WrongAnswer(f"{name} is not what Arrow reads")
            if blocks.packed.tobytes() != b"".join(batch.column("packed").to_pylist()):
                raise WrongAnswer("bases are not what Arrow reads")


class NpmiTarget(_SetTarget):
    """NPMI tables: an accepted table must have the counts and settings that were written."""

    name = "NPMI Parquet"

    def seeds(self) -> Sequence[bytes]:
        """Return the table of the set."""
        return [(self._folder / "table.parquet").read_bytes()]

    def run(self, content: bytes) -> None:
        """Read the table and compare it with the original."""
        path = self._folder / "mutant.parquet"
        path.write_bytes(content)
        found, expected = NpmiTable.from_parquet(path), NpmiTable.from_parquet(self._folder / "table.parquet")
        same = found.counts.keys() == expected.counts.keys() and all(
            np.array_equal(found.counts[k], expected.counts[k]) for k in expected.counts
        )
        if not same or dataclasses.replace(found, counts={}) != dataclasses.replace(expected, counts={}):
            raise WrongAnswer("another table is read")


class BedTarget:
    """BED files of regions."""

    name = "BED"
    _CONTIGS = Contigs(names=["chr1", "chr2", "x"], num_bases=np.array([1000, 50, 0]))

    def __init__(self, folder: Path) -> None:
        self._path = folder / "mutant.bed"

    def prepare(self) -> None:
        """Nothing to make."""

    def seeds(self) -> Sequence[bytes]:
        """Return BED files with tabs, with blanks, and with headers."""
        return [
            b"track name=x\nbrowser position\n#c\nchr1\t0\t10\tname\t5\t+\nchr2\t3\t50\nchr1\t5\t1000\n",
            b"chr1 0 10\r\n\r\nchr2 3 50\r\nchr1 999 1000\r\n",
        ]

    def mutate(self, seed: bytes, generator: random.Random) -> bytes:
        """Return a mutated file."""
        words = (
            b"chr1\t",
            b"\t",
            b"-1",
            b"99999999999999999999",
            b"1_0",
            b"\n",
            b" ",
            b"1e3",
            b"0x10",
            b"+5",
            b"\xd9\xa1",
        )
        return mutate_bytes(seed, generator, words)

    def run(self, content: bytes) -> None:
        """Read the file and compare it with a naive reader."""
        self._path.write_bytes(content)
        found = read_bed(self._path, self._CONTIGS)
        expected = []
        for line in content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
            words = line.split()
            if words and not line.startswith(b"#") and words[0] not in (b"track", b"browser"):
                fields = [field.strip() for field in line.split(b"\t")] if b"\t" in line else words
                name = fields[0].decode(errors="replace")
                expected.append((self._CONTIGS.names.index(name), int(fields[1]), int(fields[2])))
        if found.intervals.tolist() != [list(interval) for interval in expected]:
            raise WrongAnswer(f"{found.intervals.tolist()}, a naive reader finds {expected}")


def _same_rows(rows: StoredRows, others: StoredRows) -> bool:
    return np.array_equal(rows.input_ids, others.input_ids) and np.array_equal(rows.num_tokens, others.num_tokens)


def _with_new_hashes(content: bytes) -> bytes:
    """Return a manifest with recomputed hashes, or unchanged if it cannot be parsed."""
    document = json.loads(content)
    if not isinstance(document, dict):
        return content
    try:
        manifest = from_json(Manifest, {name: v for name, v in document.items() if name != "format"}, "the manifest")
        return manifest.with_hashes().to_json().encode()
    except (ValueError, TypeError, KeyError, AttributeError):
        return content
